"""The GPU benchmark, as far as a machine without a GPU can tell: it refuses, and it goes on where it was."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402

from entpruner.models.network import BlockNetwork  # noqa: E402
from entpruner.system.files import read_json  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def bench() -> gpu.Bench:
    return gpu.Bench(gpu.TINY, CPU, batch=2, ceilings={"bfloat16": 1e12, "float32": 1e12})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_it_imports_what_it_says_it_needs() -> None:
    found = "import sys, gpu; print(gpu.main()); print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", found], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    said, code, modules = run.stdout.splitlines()
    assert (said, code) == (
        "benchmarks/gpu.py measures a GPU, and PyTorch finds none here: run it where there is one",
        "1",
    )
    imported = set(modules.split())
    assert set(gpu.NEEDS.split()) <= imported
    others = {"diffusers", "matplotlib", "mlflow", "scipy", "sklearn", "snakemake", "torchvision", "yaml"}
    assert imported.isdisjoint(others)


def test_images_a_second_and_utilisation_are_known_of_every_way(
    bench: gpu.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BlockNetwork, "compile_blocks", lambda _: None)  # the compiler takes long
    found = gpu.sampling(bench, "SiT")
    assert found["images_per_second"].keys() == found["utilisation"].keys() == found["seconds"].keys()
    assert all(0 < share < 1 for share in found["utilisation"].values())


def test_fewer_blocks_are_held_to_what_their_macs_allow(bench: gpu.Bench) -> None:
    found = gpu.latencies(bench)
    assert list(found) == ["4", "3", "2"]
    assert found["4"]["share_of_what_macs_allow"] == found["4"]["speedup"] == 1
    assert found["2"]["share_of_what_macs_allow"] < found["2"]["speedup"]


def test_what_does_not_fit_is_named_and_what_is_measured_is_not_again(
    bench: gpu.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def figure(name: str) -> Any:
        def measured(_: gpu.Bench) -> dict[str, Any]:
            asked.append(name)
            if name == "too large":
                raise torch.OutOfMemoryError
            return {"flops": {}}

        return measured

    monkeypatch.setattr(gpu, "FIGURES", {name: figure(name) for name in ("ceiling", "too large", "latency")})
    out = tmp_path / "gpu.json"
    gpu.measure(bench, out, seconds=60)
    assert asked == ["ceiling", "too large", "latency"]
    assert "too large: left out, because it does not fit into the memory of this card\n" in capsys.readouterr().out
    gpu.measure(bench, out, seconds=-1)
    assert asked == ["ceiling", "too large", "latency"]
    assert "too large: no time is left; run the command again for the rest\n" in capsys.readouterr().out
    content = read_json(out)
    assert list(content["figures"]) == ["ceiling", "latency"] and content["shape"]["depth"] == gpu.TINY.depth
