"""How fast this package is on the CPU at hand, always against another way of the same thing: `make bench`.

    python benchmarks/suite.py [NAME ...] [--rounds 5]

The ways of a figure take turns in one process. Each figure is written as soon as it is known, to
benchmarks/results/cpu-<processor>.json, and docs/benchmarks.md is made of these files. With names, only these figures
are measured, and the others stay as they are.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import comparisons
import official
import torch
from side_by_side import Comparison, measured

from entpruner.params.backbones import Architecture, Diffusion, Flow
from entpruner.params.compute import Compute
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.process import make_process
from entpruner.system.devices import cpu_has_bfloat16, keep_freed_memory
from entpruner.system.files import read_json, write_json
from entpruner.system.recording import Stopwatch
from entpruner.system.warm import ADDRESS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/benchmarks.md"
HEAD = """# Benchmarks

`make bench` writes this page, from the files `benchmarks/results/cpu-*.json` that it measures. Every number is a ratio
of two times, of ways that take turns in one sitting. A ratio above 1 says that ours is faster. Networks have random
weights, which changes no time. `benchmarks/official.py` holds the plain form of training steps, samplers and proxies,
written from their descriptions. Both ways keep freed memory for the next tensors, as our commands do; the figures of
the Intel processor are older, from before they did.
"""

CPU = torch.device("cpu")
DIFFUSION, FLOW = make_process(Diffusion()), make_process(Flow())
DIGITS = Architecture(
    depth=12, hidden_size=64, num_heads=4, patch_size=4, input_size=8, in_channels=1, num_classes=10
)  # fmt: skip
SMALL = Architecture(
    depth=12, hidden_size=384, num_heads=6, patch_size=2, input_size=32, in_channels=4, num_classes=1000
)  # DiT-S/2 and SiT-S/2 on latents of 256 pixels
STEPS = 5  # of a sampler: its time is proportional to them
FEW = Sampling(
    samples=4, batch_size=4, diffusion=DiffusionSampler(steps=STEPS), flow=FlowSampler(name="euler", steps=STEPS)
)
MANY = FEW.model_copy(update={"samples": 240, "batch_size": 240})
FEW_BY_SDE = FEW.model_copy(update={"flow": FlowSampler(name="sde", steps=STEPS)})

DIT_LOSS, SIT_LOSS = official.Diffusion().loss, official.flow_loss
ONE, TWO = Compute(device="cpu"), Compute(device="cpu", threads=2)
EAGER = {"our loop": TWO}
BOTH = {"our loop, compiled": ONE.model_copy(update={"compile": True}), "our loop": ONE}
AS_FAST = {comparisons.PLAIN: 0.95}

HALF = TWO.model_copy(update={"cpu_bf16": True})

trained = partial(comparisons.training, device=CPU)
shared = comparisons.processes
sampled = partial(comparisons.sampling, steps=STEPS, device=CPU, threads=2, compiled=True)


def in_bfloat16() -> Comparison:
    """A step in bfloat16. A CPU that emulates it needs so long that it is timed on one image, twice."""
    ways, native = {"our loop, bfloat16": HALF, **EAGER}, cpu_has_bfloat16()
    if native:
        return trained("DiT-S/2", SMALL, DIFFUSION, DIT_LOSS, ways, batch=8, steps=2, bars={comparisons.PLAIN: 1.6})
    name = "DiT-S/2 (this CPU emulates bfloat16)"
    return replace(trained(name, SMALL, DIFFUSION, DIT_LOSS, ways, batch=1, steps=1, bars={}), rounds=2)


FIGURES: dict[str, Callable[[], Comparison]] = {
    "train_dit": lambda: trained("DiT-S/2", SMALL, DIFFUSION, DIT_LOSS, EAGER, batch=8, steps=2, bars=AS_FAST),
    "train_sit": lambda: trained("SiT-S/2", SMALL, FLOW, SIT_LOSS, EAGER, batch=8, steps=2, bars=AS_FAST),
    "train_digits": lambda: trained(
        "DiT of digits", DIGITS, DIFFUSION, DIT_LOSS, BOTH, batch=64, steps=10, bars={"our loop": 1.4}
    ),
    "train_bf16": in_bfloat16,
    "processes": lambda: shared("DiT-S/2", SMALL, batch=8, steps=2, cpu_time=False, bar=1 / 1.1),
    "processes_cpu": lambda: shared("DiT-S/2", SMALL, batch=8, steps=2, cpu_time=True, bar=1 / 1.1),
    "processes_digits": lambda: shared("DiT of digits", DIGITS, batch=64, steps=20, cpu_time=True),
    "sample_ddpm": lambda: sampled("DDPM, DiT-S/2", SMALL, DIFFUSION, FEW, official.ddpm, bar=1.15),
    "sample_euler": lambda: sampled("Euler, SiT-S/2", SMALL, FLOW, FEW, official.euler, bar=1.15),
    "sample_sde": lambda: sampled("SDE, SiT-S/2", SMALL, FLOW, FEW_BY_SDE, official.sde, bar=1.9),
    "sample_digits_ddpm": lambda: sampled(
        "DDPM, DiT of digits", DIGITS, DIFFUSION, MANY, official.ddpm, threads=1, bar=1.15
    ),
    "sample_digits_euler": lambda: sampled(
        "Euler, SiT of digits", DIGITS, FLOW, MANY, official.euler, threads=1, bar=1.15
    ),
    "ced_12": lambda: comparisons.ced(DIGITS, 512, 128, CPU),
    "ced_28": lambda: comparisons.ced(DIGITS.model_copy(update={"depth": 28}), 256, 128, CPU),
    "proxies": lambda: comparisons.proxies(DIGITS, 16, CPU),
    "vote": lambda: comparisons.vote(DIGITS, CPU),
    "commands": comparisons.commands,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("figures", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; default: all")
    options.add_argument("--rounds", type=int, help="times that each way is timed; default 3 or 5")
    given = options.parse_args()
    if unknown := set(given.figures) - FIGURES.keys():
        options.error(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    if ADDRESS not in os.environ:
        os.execv(sys.executable, [sys.executable, "-m", "entpruner.cli", "warm", "--", sys.executable, *sys.argv])
    measure(given.figures or list(FIGURES), RESULTS, given.rounds)
    PAGE.write_text(page([read_json(file) for file in sorted(RESULTS.glob("cpu-*.json"))]))


def measure(names: Sequence[str], folder: Path, rounds: int | None = None) -> None:
    """Measure these figures, print them, and add each to the file of this machine in ``folder``."""
    record = Stopwatch(CPU).record()
    out = folder / f"cpu-{record['device'].replace(' ', '-')}.json"
    content: dict[str, Any] = read_json(out) if out.exists() else {"figures": {}}
    machine = {key: record[key] for key in ("device", "python", "torch")} | {"cores": os.cpu_count()}
    keep_freed_memory()
    for name in names:
        comparison = FIGURES[name]()
        if rounds:
            comparison = replace(comparison, rounds=rounds)
        figure = {"title": comparison.title, **measured(comparison, CPU), "machine": machine}
        content["figures"][name] = figure
        write_json(out, content)
        for row in rows_of(figure):
            print("  ".join(row), flush=True)


def rows_of(figure: Mapping[str, Any]) -> Iterator[list[str]]:
    """For each other way: what was compared, how many times as fast ours is, quartiles, the bar, and the difference."""
    for other, found in figure["times_as_fast"].items():
        bar = figure["bars"].get(other)
        missed = " (missed)" if bar is not None and found["median"] < bar else ""
        yield [
            figure["title"],
            f"{figure['ours']}, against {other}",
            f"{found['median']:.2f}×",
            f"{found['low']:.2f}–{found['high']:.2f}",
            "" if bar is None else f"≥ {bar:.2f}×{missed}",
            f"{figure['differences'][other]:.1g}" if other in figure["differences"] else "",
        ]


def page(contents: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown of docs/benchmarks.md: a table for each machine."""
    lines = [HEAD]
    for content in contents:
        figures = content["figures"].values()
        machine = next(iter(figures))["machine"]
        lines += [
            f"## {machine['device']}, {machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}",
            "",
            "| what | ways | times as fast, median | quartiles | bar | largest relative difference of the numbers |",
            "|---|---|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for figure in figures for row in rows_of(figure)),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
