"""GPUs by name: what a study's FLOPs are divided by. The numbers are those of NVIDIA's data sheets."""

import re
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


SHARE = min(gpu.float32 / gpu.bf16 for gpu in GPUS)
"""What a GPU without a stated peak in float32 is taken to reach there: the smallest share of those above."""
OWN = "tflops=165,memory=24"


def gpu_named(name: str) -> Gpu:
    """The GPU of this name, in any case, or one described by peaks and memory as in ``OWN``.

    ``tflops`` is the dense peak in bfloat16 in TFLOP/s, ``memory`` is in GB. ``float32`` may stand beside them. Raises
    UserError with what to choose from.
    """
    if "=" in name:
        return gpu_described(name)
    known = {gpu.name.lower(): gpu for gpu in GPUS}
    asked = name.lower()
    if asked not in known:
        near = [key for key in known if asked in key] or get_close_matches(asked, known, n=1)
        hint = f"; did you mean {' or '.join(known[key].name for key in near)}?" if near else ""
        names = ", ".join(gpu.name for gpu in GPUS)
        raise UserError(f"--gpu: got {name}; allowed: {names}, or any other as in {OWN}{hint}")
    return known[asked]


def gpu_described(text: str) -> Gpu:
    """The GPU of ``tflops=...,memory=...`` and perhaps ``float32=...``; raises UserError for anything else."""
    given = dict(re.findall(r"(?:^|,) *(tflops|float32|memory)=(\d+(?:\.\d+)?)(?=,|$)", text))
    numbers = {key: float(value) for key, value in given.items()}
    if len(numbers) != text.count("=") or not {"tflops", "memory"} <= numbers.keys() or min(numbers.values()) <= 0:
        allowed = f"tflops and memory, and perhaps float32, each once and above 0, as in {OWN}"
        raise UserError(f"--gpu: got {text}; allowed: {allowed}")
    peak = numbers["tflops"]
    return Gpu(text, peak, numbers.get("float32", SHARE * peak), int(numbers["memory"]))
