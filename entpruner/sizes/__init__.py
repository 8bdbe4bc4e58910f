"""How much it takes: FLOPs, bytes of memory and of disk. Arithmetic without PyTorch."""
