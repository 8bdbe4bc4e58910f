"""GPUs by name: what a study's FLOPs are divided by. The numbers are those of NVIDIA's data sheets.

Add a line for a GPU that is missing here.
"""

from difflib import get_close_matches
from typing import NamedTuple

from entpruner.errors import UserError


class Gpu(NamedTuple):
    name: str
    bf16: float
    """Peak of the tensor cores, dense, in TFLOP/s: half of what data sheets give with sparsity."""
    float32: float
    """Peak without tensor cores, in TFLOP/s: features are computed in full float32."""
    memory: int
    """In GB."""


GPUS = (
    Gpu("H200", 989.4, 67, 141),
    Gpu("H100 SXM", 989.4, 67, 80),
    Gpu("H100 PCIe", 756, 51, 80),
    Gpu("A100 80GB", 312, 19.5, 80),
    Gpu("A100 40GB", 312, 19.5, 40),
    Gpu("L40S", 362, 91.6, 48),
    Gpu("A10", 125, 31.2, 24),
    Gpu("L4", 121, 30.3, 24),
)


def gpu_named(name: str) -> Gpu:
    """The GPU of this name, in any case. Raises UserError with the names to choose from."""
    known = {gpu.name.lower(): gpu for gpu in GPUS}
    asked = name.lower()
    if asked not in known:
        near = [key for key in known if asked in key] or get_close_matches(asked, known, n=1)
        hint = f"; did you mean {' or '.join(known[key].name for key in near)}?" if near else ""
        names = ", ".join(gpu.name for gpu in GPUS)
        raise UserError(f"--gpu: got {name}; allowed: {names}{hint} (entpruner/planning/gpus.py takes others)")
    return known[asked]
