"""The GPU benchmark, as far as a machine without one can tell: it refuses, and what it measures with works."""

import importlib
import subprocess
import sys
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scoring_context import ARCHITECTURE

from entpruner.errors import UserError
from entpruner.params.backbones import Flow
from entpruner.params.compute import Compute
from entpruner.process import make_process
from entpruner.system.files import read_json

FILE = Path(__file__).parents[1] / "benchmarks/gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    run = subprocess.run([sys.executable, FILE, "training", "DiT-XL/2"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout == "benchmarks/gpu.py measures a GPU, and PyTorch finds none here: run it where there is one\n"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FILE.parent)
    return importlib.import_module("gpu")


@pytest.mark.parametrize("what", ["trained", "sampled"])
def test_every_number_of_blocks_has_its_speed(what: str, gpu: ModuleType) -> None:
    measured = getattr(gpu, what)
    for blocks in (4, 2):
        row = measured(ARCHITECTURE, blocks, make_process(Flow()), Compute(device="cpu"), torch.device("cpu"), batch=2)
        assert len(row["all_images_per_second"]) == gpu.TIMED
        assert row["images_per_second"] > 0 and row["estimated_gib"] > 0


def test_a_compiled_network_s_memory_is_not_counted_to_the_next(gpu: ModuleType) -> None:
    model = gpu.network(ARCHITECTURE, 2)
    model.compile_blocks()
    gone = weakref.ref(model.blocks[0])
    del model
    gpu.forget_memory(torch.device("cpu"))
    assert gone() is None


def test_speed_ups_are_kept_beside_the_bound_and_what_is_measured_is_not_again(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def sampled(shape: Any, blocks: int, *_: Any) -> dict[str, Any]:
        if blocks == 12 and 12 not in asked:
            asked.append(blocks)
            raise UserError("no room")
        asked.append(blocks)
        return {"images_per_second": 56 / blocks, "peak_gib": 1.0, "estimated_gib": 1.0}

    monkeypatch.setattr(gpu, "sampled", sampled)
    out = tmp_path / "gpu.json"
    given = ("sampling", "SiT-XL/2", Compute(device="cpu"), torch.device("cpu"), out)
    with pytest.raises(UserError):
        gpu.measure(*given)
    gpu.measure(*given)
    assert asked == [28, 20, 14, 12, 12]
    rows = read_json(out)["measured"]["sampling SiT-XL/2 eager"]
    assert (rows["14"]["speed_up"], rows["14"]["at_most"]) == (2.0, 2.0)
