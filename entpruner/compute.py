"""Where a command computes, and the process-wide settings that its numbers depend on."""

import os

import torch

from entpruner.errors import UserError
from entpruner.params import Compute


def device_of(compute: Compute) -> torch.device:
    """The device that ``compute.device`` names; ``auto`` is the GPU where there is one.

    Raises UserError when CUDA is asked for and absent.
    """
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        raise UserError("compute.device is cuda, but PyTorch finds no CUDA device here: set it to auto or cpu")
    return torch.device("cuda" if available and compute.device != "cpu" else "cpu")


def configure(compute: Compute) -> torch.device:
    """Set threads, determinism and matrix precision for the whole process; returns the device. Call it once, first."""
    device = device_of(compute)
    torch.set_num_threads(compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # older cuBLAS is only deterministic with it
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler: seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing here reads it
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as the official trainings
    return device
