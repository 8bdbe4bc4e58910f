"""Where a command computes, and the process-wide settings that its numbers depend on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from entpruner.errors import UserError
from entpruner.params.compute import Compute
from entpruner.system.parallel import join, started_by_torchrun


def device_of(compute: Compute, gpus_here: int | None = None) -> torch.device:
    """The device that ``compute`` names for this process; ``auto`` is the GPU where there is one.

    Raises UserError when more GPUs are asked for than there are: ``gpus_here``, or as many as PyTorch finds.
    """
    if compute.device == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count() if gpus_here is None else gpus_here
    asked = max(compute.gpus, compute.device == "cuda")
    if not found and asked == 1 and compute.device == "auto":
        return torch.device("cpu")
    if asked > found:
        raise UserError(
            f"compute asks for {asked} GPU{'s' if asked > 1 else ''}, but PyTorch finds {found or 'none'} here: "
            f"set compute.{'gpus' if found else 'device'} to {found or 'cpu'}, or run it where there are as many"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if started_by_torchrun() else torch.device("cuda")


def configure(compute: Compute) -> torch.device:
    """Set threads, determinism and matrix precision for the whole process, and meet the others that torchrun started.

    Returns the device. Call it once, first.
    """
    device = device_of(compute)
    torch.set_num_threads(compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # older cuBLAS is only deterministic with it
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler: seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing here reads it
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as the official trainings
    join(device)
    return device


@contextmanager
def without_tf32() -> Iterator[None]:
    """On CUDA, multiply in full float32: TF32's 10 bits belong to training and sampling, not to a measure."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
