"""DiT-XL/2 and SiT-XL/2 on one GPU: images/s in training and in sampling, peak memory, and what fewer blocks save.

    python benchmarks/gpu.py --list                             # the eight commands, each of at most eight minutes
    python benchmarks/gpu.py training DiT-XL/2 --compiled       # one of them
    python benchmarks/gpu.py --list | sh                        # all

Each adds to benchmarks/results/gpu-<card>.json. One that would take longer stops between two networks, and run again
measures those that are missing. The weights are random: time does not depend on them. The speed-up is against the
whole network, and cannot exceed its number of blocks over that of the blocks that are left. Images/s in sampling are
those of STEPS steps of a sampler: at 250 they are as many times fewer as 250 is of STEPS.
"""

import argparse
import gc
import statistics
import sys
import time
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.evaluation.sampling import sampled_batches
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Backbone, Diffusion, Flow
from entpruner.params.compute import Compute
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.params.training import Training
from entpruner.process import Process, make_process
from entpruner.sizes.memory import GIB, Memory, sampling, training
from entpruner.system.devices import configure
from entpruner.system.files import read_json, write_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Stopwatch
from entpruner.training.loop import train
from entpruner.training.state import TrainState

RESULTS = Path(__file__).parent / "results"
BACKBONES = {"DiT-XL/2": Diffusion(), "SiT-XL/2": Flow()}
BLOCKS = (28, 20, 14, 12)
BATCH = 32
TIMED = 5  # times that are taken, after one that is not counted: in it kernels are chosen and compiled
TOGETHER = 10  # steps of a training that are timed as one: the next batch is drawn while the GPU still computes
STEPS = 10  # of a sampler; its time is proportional to them
LAST_START = 300  # seconds after which no further network is begun


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("training", "sampling"), nargs="?")
    options.add_argument("backbone", choices=BACKBONES, nargs="?")
    options.add_argument("--compiled", action="store_true", help="with torch.compile")
    options.add_argument("--list", action="store_true", help="print the commands that measure everything")
    given = options.parse_args()
    if given.list:
        for what, backbone, compiled in product(("training", "sampling"), BACKBONES, ("", " --compiled")):
            print(f"python benchmarks/gpu.py {what} {backbone}{compiled}")
        return 0
    if given.backbone is None:
        options.error("say what to measure, and of which backbone; or --list")
    try:
        device = configure(compute := Compute(device="cuda", compile=given.compiled))
    except UserError:
        print("benchmarks/gpu.py measures a GPU, and PyTorch finds none here: run it where there is one")
        return 1
    card = torch.cuda.get_device_name(device)
    try:
        measure(given.what, given.backbone, compute, device, RESULTS / f"gpu-{card.replace(' ', '-')}.json")
    except UserError as error:
        print(error)
        return 1
    return 0


def measure(what: str, backbone: str, compute: Compute, device: torch.device, out: Path) -> None:
    """Measure each number of blocks that ``out`` doesn't have yet, as long as there is time, and print them all."""
    began = time.monotonic()
    found: dict[str, Any] = read_json(out) if out.exists() else {"measured": {}}
    rows = found["measured"].setdefault(f"{what} {backbone} {'compiled' if compute.compile else 'eager'}", {})
    shape = Backbone(process=BACKBONES[backbone], preset=backbone).architecture(32, 4, 1000)
    assert isinstance(shape, Architecture)
    process = make_process(BACKBONES[backbone])
    for blocks in BLOCKS:
        if str(blocks) in rows:
            continue
        if time.monotonic() - began > LAST_START:
            print("That is enough for one command: run it again for the rest")
            break
        machine = Stopwatch(device).record()
        found["machine"] = {key: machine[key] for key in ("device", "python", "torch")}
        row = (trained if what == "training" else sampled)(shape, blocks, process, compute, device)
        whole = rows.get(str(shape.depth), row)["images_per_second"]  # measured first
        rows[str(blocks)] = {**row, "speed_up": row["images_per_second"] / whole, "at_most": shape.depth / blocks}
        write_json(out, found)
    report(rows)


def trained(
    shape: Architecture, blocks: int, process: Process, compute: Compute, device: torch.device, batch: int = BATCH
) -> dict[str, Any]:
    """Steps of our own loop, with the drawing of their batches."""
    random = np.random.default_rng(0)
    pixels = random.integers(
        256, size=(4 * batch, shape.in_channels, shape.input_size, shape.input_size), dtype=np.uint8
    )
    images = ImageSet(pixels, np.arange(4 * batch) % shape.num_classes, shape.num_classes)
    settings = Training(steps=(1 + TIMED) * TOGETHER, batch_size=batch, log_every=TOGETHER)
    state = TrainState.start(network(shape, blocks))
    forget_memory(device)
    needed = training(shape, range(blocks), settings, compute)
    curve = train(
        state, process, images, settings, start=0, stop=settings.steps, seed=0, artefact="gpu", compute=compute
    )
    speeds = [point["images_per_second"] for point in curve[1:]]
    return measured(speeds, needed, device, batch=batch)


def sampled(
    shape: Architecture, blocks: int, process: Process, compute: Compute, device: torch.device, batch: int = BATCH
) -> dict[str, Any]:
    """Batches of images by a sampler of ``STEPS`` evaluations, guided, hence each of twice as many images."""
    settings = Sampling(
        samples=(1 + TIMED) * batch,
        batch_size=batch,
        diffusion=DiffusionSampler(steps=STEPS),
        flow=FlowSampler(name="euler", steps=STEPS),
    )
    model = network(shape, blocks)
    if compute.compile:
        model.compile_blocks()
    forget_memory(device)
    needed = sampling(shape, range(blocks), settings)
    batches = sampled_batches(model, process, settings, range(1 + TIMED), seed=0, device=device)
    ended = [time.perf_counter() for _ in batches]  # an image is on the CPU when it comes: the GPU has done its work
    speeds = [batch / (after - before) for before, after in pairwise(ended)]
    return measured(speeds, needed, device, batch=batch, sampler_steps=STEPS, guidance=settings.guidance)


def network(shape: Architecture, blocks: int) -> Transformer:
    return Transformer(shape, tuple(range(blocks))).initialize(generator("gpu"))


def forget_memory(device: torch.device) -> None:
    """Give back what earlier networks had, and count the peak anew."""
    gc.collect()  # a compiled block holds itself
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measured(speeds: list[float], estimate: Memory, device: torch.device, **settings: Any) -> dict[str, Any]:
    peak = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else 0.0
    return {
        **settings,
        "images_per_second": statistics.median(speeds),
        "all_images_per_second": speeds,
        "peak_gib": peak,
        "estimated_gib": estimate.total / GIB,
    }


def report(rows: dict[str, Any]) -> None:
    print(f"{'blocks':>6s} {'images/s':>10s} {'speed-up':>9s} {'at most':>8s} {'peak GiB':>9s} {'estimated':>10s}")
    for blocks, found in sorted(rows.items(), key=lambda item: -int(item[0])):
        print(
            f"{blocks:>6s} {found['images_per_second']:10.2f} {found['speed_up']:8.2f}x {found['at_most']:7.2f}x "
            f"{found['peak_gib']:9.1f} {found['estimated_gib']:10.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
