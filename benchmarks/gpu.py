"""How fast DiT-XL/2 and SiT-XL/2 are on one GPU, in one command: `make bench-gpu`.

    python benchmarks/gpu.py [--minutes 6] [--out FILE]   # no figure begins after that
    python benchmarks/gpu.py --needs                # the packages that it imports beside torch and numpy
    python benchmarks/gpu.py --device cpu --tiny    # tries everything on tiny networks: its times mean nothing

It measures what multiplying matrices reaches on this card, the latency of networks with fewer blocks, training and
sampling in the plain official form and in ours, the peak memory against the estimates, CED, and the proxies of a vote.
Each figure is written as soon as it is known, to benchmarks/results/gpu-<card>.json. A figure that does not fit into
the card's memory is left out and named, and so is what there was no time for; run again, the command measures what is
missing. Weights are random, which changes no time.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import comparisons
import official
import torch
from side_by_side import Comparison, measured

from entpruner.errors import UserError
from entpruner.evaluation.cost import clock, latency
from entpruner.models.arithmetic import macs, training_flops
from entpruner.params.backbones import Architecture, Backbone, Diffusion, Flow
from entpruner.params.compute import Compute
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.params.training import Training
from entpruner.process import make_process
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.sizes.memory import GIB
from entpruner.sizes.memory import training as training_memory
from entpruner.system.devices import configure
from entpruner.system.files import read_json, write_json
from entpruner.system.recording import Stopwatch
from entpruner.training.loop import train
from entpruner.training.state import TrainState

RESULTS = Path(__file__).parent / "results"
NEEDS = "pydantic safetensors tqdm"  # a machine with torch has numpy
TINY = Architecture(depth=4, hidden_size=32, num_heads=2, patch_size=2, input_size=8, in_channels=4, num_classes=10)
PROCESSES = {"DiT": Diffusion(), "SiT": Flow()}


@dataclass(frozen=True)
class Bench:
    """The network that all figures are about, the device, and the number of images in a batch."""

    shape: Architecture
    device: torch.device
    batch: int
    ceilings: dict[str, float]
    """FLOP/s of products of large matrices, by type, once they have been measured."""

    def compute(self, **how: Any) -> Compute:
        return Compute(device="cuda" if self.device.type == "cuda" else "cpu", **how)

    @property
    def blocks(self) -> list[int]:
        """The numbers of blocks that are compared, all of them first."""
        return [round(self.shape.depth * share / 28) for share in (28, 20, 14, 12)]


# --------------------------------------------------------------------------------------------------------- the figures


def ceiling(bench: Bench) -> dict[str, Any]:
    """FLOP/s of a product of two square matrices, the fastest of three sizes: in bfloat16, and in TF32 or float32."""
    sizes = (4096, 8192, 16384) if bench.device.type == "cuda" else (256, 512)
    for dtype in (torch.bfloat16, torch.float32):
        speeds = []
        for size in sizes:
            a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
            a @ b
            started = clock(bench.device)
            for _ in range(repeats := 10):
                a @ b
            speeds.append(repeats * 2 * size**3 / (clock(bench.device) - started))
        bench.ceilings[str(dtype).removeprefix("torch.")] = max(speeds)
    return {"flops": dict(bench.ceilings)}


def latencies(bench: Bench) -> dict[str, Any]:
    """The time of a forward pass with fewer blocks, and the share of the speed-up that the MACs allow."""
    models = {str(n): comparisons.network(bench.shape, torch.device("cpu"), blocks=n) for n in bench.blocks}
    whole = str(bench.shape.depth)
    found = latency(models, whole, bench.batch, 20, bench.device)
    return {
        n: {
            "images_per_second": 1 / timed.seconds_per_image,
            "speedup": timed.speedup,
            "speedup_quartiles": timed.speedup_quartiles,
            "share_of_what_macs_allow": timed.speedup * macs(bench.shape, int(n)) / macs(bench.shape),
        }
        for n, timed in found.items()
    }


def training(bench: Bench, name: str) -> dict[str, Any]:
    """Steps in bfloat16, compiled, eager, and with checkpointing, against the plain form in TF32."""
    process = make_process(PROCESSES[name])
    loss = official.Diffusion().loss if name == "DiT" else official.flow_loss
    ways = {
        "compiled": bench.compute(compile=True),
        "eager": bench.compute(),
        "eager, checkpointing": bench.compute(gradient_checkpointing=True),
    }
    steps = 5
    found = timed(
        bench,
        comparisons.training(
            f"{name}-XL/2",
            bench.shape,
            process,
            loss,
            ways,
            batch=bench.batch,
            steps=steps,
            device=bench.device,
            bars={comparisons.PLAIN: 3.0},
        ),
        images=steps * bench.batch,
    )
    # Model FLOPs: what checkpointing computes a second time does not count.
    flops = training_flops(bench.shape, range(bench.shape.depth), batch_size=1, steps=1)
    speeds = found["images_per_second"]
    found["utilisation"] = {way: speeds[way] * flops / bench.ceilings["bfloat16"] for way in ways}
    return found


def sampling(bench: Bench, name: str) -> dict[str, Any]:
    """Guided sampling, compiled and eager, against the plain form."""
    steps = 10
    settings = Sampling(
        samples=bench.batch,
        batch_size=bench.batch,
        diffusion=DiffusionSampler(steps=steps),
        flow=FlowSampler(name="euler", steps=steps),
    )
    plain = official.ddpm if name == "DiT" else official.euler
    comparison = comparisons.sampling(
        f"{name}-XL/2",
        bench.shape,
        make_process(PROCESSES[name]),
        settings,
        plain,
        steps=steps,
        device=bench.device,
        bar=2.0,
        compiled=True,
    )
    found = timed(bench, comparison, images=bench.batch)
    flops = 2 * 2 * steps * macs(bench.shape)  # with and without the class
    speeds = found["images_per_second"].items()
    found["utilisation"] = {way: speed * flops / bench.ceilings["float32"] for way, speed in speeds}
    return found


def memory(bench: Bench) -> dict[str, Any]:
    """Peak memory of two training steps against the estimate, in GiB."""
    found = {}
    settings = Training(steps=2, batch_size=bench.batch)
    images = comparisons.images_like(bench.shape, bench.batch)
    for name, compute in {
        "bfloat16": bench.compute(),
        "bfloat16, checkpointing": bench.compute(gradient_checkpointing=True),
        "float32": bench.compute(bf16=False),
    }.items():
        forget(bench.device)
        state = TrainState.start(comparisons.network(bench.shape, bench.device))
        process = make_process(Diffusion())
        train(state, process, images, settings, start=0, stop=2, seed=0, artefact="benchmark", compute=compute)
        peak = torch.cuda.max_memory_allocated(bench.device) if bench.device.type == "cuda" else 0
        estimate = training_memory(bench.shape, range(bench.shape.depth), settings, compute).total
        found[name] = {"peak_gib": peak / GIB, "estimated_gib": estimate / GIB}
        del state
    return found


def ced(bench: Bench) -> dict[str, Any]:
    return timed(bench, comparisons.ced(bench.shape, 4 * bench.batch, bench.batch, bench.device))


def proxies(bench: Bench) -> dict[str, Any]:
    return timed(bench, comparisons.proxies(bench.shape, 16, bench.device))


def vote(bench: Bench) -> dict[str, Any]:
    """Seconds of both proxies of one candidate, and of the three candidates of a vote."""
    model = comparisons.network(bench.shape, bench.device)
    images = comparisons.images_like(bench.shape, 16)
    samples = ProxySamples(make_process(Diffusion()), images, 0, "benchmark", bench.device)
    measure = measure_on(model, make_process(Diffusion()), samples, Proxies())
    measure([[0]])
    seconds = []
    for candidates in ([[0]], [[0], [0, 1], [0, 1, 2]]):
        started = clock(bench.device)
        measure(candidates)
        seconds.append(clock(bench.device) - started)
    return {"one_candidate_seconds": seconds[0], "three_candidates_seconds": seconds[1]}


FIGURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "ceiling": ceiling,
    "latency": latencies,
    "training DiT": partial(training, name="DiT"),
    "sampling DiT": partial(sampling, name="DiT"),
    "memory": memory,
    "ced": ced,
    "vote": vote,
    "proxies": proxies,
    "training SiT": partial(training, name="SiT"),
    "sampling SiT": partial(sampling, name="SiT"),
}


# --------------------------------------------------------------------------------------------------------- the command


def timed(bench: Bench, comparison: Comparison, images: int | None = None) -> dict[str, Any]:
    """What was measured of the ways, and the images a second of each by its median time."""
    found = {"title": comparison.title, **measured(comparison, bench.device)}
    if images:
        found["images_per_second"] = {
            way: images / sorted(seconds)[len(seconds) // 2] for way, seconds in found["seconds"].items()
        }
    return found


def forget(device: torch.device) -> None:
    """Give back what earlier networks had, and count the peak anew."""
    torch.compiler.reset()  # compiled code holds the networks that it was made for
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measure(bench: Bench, out: Path, seconds: float) -> None:
    """Measure each figure that ``out`` does not have yet, as long as there is time."""
    began = time.monotonic()
    content: dict[str, Any] = read_json(out) if out.exists() else {"figures": {}}
    record = Stopwatch(bench.device).record()
    content["machine"] = {key: record[key] for key in ("device", "python", "torch")}
    content |= {"shape": bench.shape.model_dump(mode="json"), "batch": bench.batch}
    bench.ceilings.update(content["figures"].get("ceiling", {}).get("flops", {}))
    for name, figure in FIGURES.items():
        if name in content["figures"]:
            continue
        if time.monotonic() - began > seconds:
            print(f"{name}: no time is left; run the command again for the rest")
            break
        forget(bench.device)
        started = time.monotonic()
        try:
            found = figure(bench)
        except torch.OutOfMemoryError:
            print(f"{name}: left out, because it does not fit into the memory of this card")
            continue
        content["figures"][name] = found
        write_json(out, content)
        print(f"{name} ({time.monotonic() - started:.0f} s): {said(found)}", flush=True)


def said(found: dict[str, Any]) -> str:
    """The findings of a figure, in one line."""
    if "times_as_fast" not in found:
        return str(found)
    ratios = [f"{ratio['median']:.2f} times as fast as {other}" for other, ratio in found["times_as_fast"].items()]
    shares = [f"{way} {share:.0%} of the ceiling" for way, share in found.get("utilisation", {}).items()]
    return f"{found['ours']}: {', '.join(ratios + shares)}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=6, help="no figure begins after that; default 6")
    options.add_argument("--out", type=Path, help="default benchmarks/results/gpu-<card>.json")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default cuda")
    options.add_argument("--tiny", action="store_true", help="tiny networks, to see that everything runs")
    options.add_argument(
        "--needs", action="store_true", help="print the packages that it imports beside torch and numpy"
    )
    given = options.parse_args()
    if given.needs:
        print(NEEDS)
        return 0
    try:
        device = configure(Compute(device=given.device))
    except UserError:
        print("benchmarks/gpu.py measures a GPU, and PyTorch finds none here: run it where there is one")
        return 1
    if given.tiny and given.out is None:
        options.error("--tiny measures nothing that is worth keeping: say where to write it, with --out")
    shape = TINY if given.tiny else Backbone(process=Diffusion(), preset="DiT-XL/2").architecture(32, 4, 1000)
    assert isinstance(shape, Architecture)
    bench = Bench(shape, device, batch=4 if given.tiny else 32, ceilings={})
    card = Stopwatch(device).record()["device"].replace(" ", "-")
    measure(bench, given.out or RESULTS / f"gpu-{card}.json", given.minutes * 60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
