"""The GPU benchmark, as far as a machine without one can tell: it refuses, and what it measures with works."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scoring_context import ARCHITECTURE

from entpruner.params.backbones import Flow
from entpruner.params.compute import Compute
from entpruner.process import make_process

FILE = Path(__file__).parents[1] / "benchmarks/gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    run = subprocess.run([sys.executable, FILE, "training", "DiT-XL/2"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout == "benchmarks/gpu.py measures a GPU, and PyTorch finds none here: run it where there is one\n"


@pytest.mark.parametrize("what", ["trained", "sampled"])
def test_every_number_of_blocks_has_its_speed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FILE.parent)
    import gpu

    measured = getattr(gpu, what)
    for blocks in (4, 2):
        row = measured(ARCHITECTURE, blocks, make_process(Flow()), Compute(device="cpu"), torch.device("cpu"), batch=2)
        assert len(row["all_images_per_second"]) == gpu.TIMED
        assert row["images_per_second"] > 0 and row["estimated_gib"] > 0
