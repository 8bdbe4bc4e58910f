"""The device that a command computes on, and the settings of the process that its numbers depend on."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from entpruner.errors import UserError
from entpruner.params.compute import Compute
from entpruner.system.parallel import join, started_by_torchrun

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's mallopt(3)


def device_of(compute: Compute, gpus_here: int | None = None) -> torch.device:
    """The device that ``compute`` names for this process. ``auto`` is the GPU if there is one, and the CPU otherwise.

    ``gpus_here`` is the number of GPUs; without it, PyTorch counts them. Raises UserError if ``compute`` asks for more.
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
    """Set threads, determinism and matrix precision for the whole process, and return its device.

    A process that torchrun started meets the other processes here. A command calls this once, before anything else.
    Raises UserError if ``device_of`` does, and for ``cpu_bf16`` on a CPU that would emulate it.
    """
    device = device_of(compute)
    if device.type == "cpu" and compute.cpu_bf16 and not cpu_has_bfloat16():
        raise UserError(
            "compute.cpu_bf16: this CPU has no instructions for bfloat16 (avx512_bf16 or amx_bf16, on ARM bf16), and "
            "emulates it more slowly than float32: set it to false, or run where the CPU has them"
        )
    torch.set_num_threads(compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # older cuBLAS is deterministic only with this
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports the compiler, which takes seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # no code reads such memory
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in the official trainings
    else:
        keep_freed_memory()
    join(device)
    return device


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory for the next tensors, where the C library is glibc.

    By default it returns the memory of large tensors to the system, which clears each page again when the next layer
    asks for it. The largest threshold that glibc allows for pieces of their own is 32 MiB.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(TRIM_THRESHOLD, 2**30)
        mallopt(MMAP_THRESHOLD, 2**25)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16. Another one emulates it."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


@cache
def compiler_problem(device: torch.device) -> str | None:
    """Why torch.compile cannot make code for the device, in one line. None if it can: a small function is tried."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # the compiler may be missing or broken, or the folder of its cache read-only
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


@contextmanager
def without_tf32() -> Iterator[None]:
    """Within the block, CUDA multiplies in full float32. TF32 has 10 bits of mantissa, too few for measurements."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
