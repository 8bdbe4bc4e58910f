"""``python -m entpruner.cli``, as torchrun and SLURM start it."""

import sys

from entpruner.cli import main

if __name__ == "__main__":
    sys.exit(main())
