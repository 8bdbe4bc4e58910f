"""How time and memory grow: with depth, width, tokens and batch, and Snakemake's planning with the number of arms.

    python benchmarks/growth.py [--only network | arms] [--arms N ...]

Each axis is varied alone around one small transformer, on one thread. Time is CPU time, the median of three runs, so
that other processes hardly disturb it. Memory is the largest sum of tensors that lived at once beyond what lived
before. An exponent p is fitted to the three largest sizes: doubling the size multiplies the cost by 2**p. The command
writes benchmarks/results/growth-<processor>.json, docs/growth.svg and docs/growth.md.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comparisons
import numpy as np
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from entpruner.params.backbones import Architecture, Diffusion
from entpruner.params.compute import Compute
from entpruner.params.files import read_study
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import DiffusionSampler, Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Training
from entpruner.process import make_process
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.scores import ScoreContext, score
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.files import read_json, write_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Stopwatch
from entpruner.training.loop import train
from entpruner.training.state import TrainState

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
AXES = {"depth": (2, 4, 8, 16), "width": (32, 64, 128, 256), "tokens": (16, 64, 256), "batch": (2, 4, 8, 16)}
BASE = {"depth": 4, "width": 64, "tokens": 16, "batch": 4}
ARMS = (120, 500, 1500)
HEAD = """# How cost grows

`make growth` writes this page. {machine}. Around a transformer of {depth} blocks of width {width}, with {tokens} tokens
and a batch of {batch}, each axis is varied alone. Time is CPU time of one thread. Memory is that of tensors beyond the
network that was given. An exponent p is fitted to the three largest sizes: twice the size costs 2^p times as much.

![Time and memory against depth, width, tokens and batch](growth.svg)

| exponent of | time: depth | width | tokens | batch | memory: depth | width | tokens | batch |
|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=("network", "arms"), help="measure this part, and keep the other")
    options.add_argument(
        "--arms", type=int, nargs="+", default=ARMS, help="numbers of arms to plan; default: %(default)s"
    )
    given = options.parse_args()
    torch.set_num_threads(1)
    record = Stopwatch(CPU).record()
    out = ROOT / f"benchmarks/results/growth-{record['device'].replace(' ', '-')}.json"
    content: dict[str, Any] = read_json(out) if out.exists() else {}
    content["machine"] = {key: record[key] for key in ("device", "python", "torch")}
    if given.only != "arms":
        content["network"] = {axis: [measured(axis, size) for size in sizes] for axis, sizes in AXES.items()}
        write_json(out, content)
    if given.only != "network":
        content["arms"] = [planned(arms) for arms in given.arms]
        write_json(out, content)
    draw(content["network"], ROOT / "docs/growth.svg")
    (ROOT / "docs/growth.md").write_text(page(content))


# ------------------------------------------------------------------------------------------------------------- networks


def measured(axis: str, size: int) -> dict[str, Any]:
    """CPU seconds and bytes of each task at this size of one axis."""
    sizes = BASE | {axis: size}
    found = {task: cost(run) for task, run in tasks(sizes).items()}
    print(f"{axis} {size}", {task: f"{one['seconds']:.3f} s" for task, one in found.items()}, flush=True)
    return {"size": size, "tasks": found}


def tasks(sizes: Mapping[str, int]) -> dict[str, Callable[[], object]]:
    """What is measured: a step of training, two guided steps of sampling, CED of a batch, and both proxies."""
    side, batch = 2 * int(sizes["tokens"] ** 0.5), sizes["batch"]
    shape = Architecture(
        depth=sizes["depth"],
        hidden_size=sizes["width"],
        num_heads=sizes["width"] // 32,
        patch_size=2,
        input_size=side,
        in_channels=4,
        num_classes=10,
    )
    process, model = make_process(Diffusion()), comparisons.network(shape, CPU)
    images, compute = comparisons.images_like(shape, 4 * batch), Compute(device="cpu")
    settings = Training(steps=1, batch_size=batch, log_every=1)
    sampling = Sampling(samples=batch, batch_size=batch, diffusion=DiffusionSampler(steps=2))
    noise, y = comparisons.noise_like(shape, batch, "growth"), torch.arange(batch) % 10
    state = TrainState.start(comparisons.network(shape, CPU))
    step = partial(train, process=process, images=images, settings=settings, start=0, stop=1, compute=compute)
    context = ScoreContext(
        model=model,
        process=process,
        images=images,
        settings=Scoring(draws=batch, batch_size=batch),
        sampling=sampling,
        seed=0,
        artefact="growth",
        device=CPU,
    )
    proxies = Proxies(ntk={"samples": max(batch, 2)}, zico={"batch_size": batch})
    measure = measure_on(model, process, ProxySamples(process, images, 0, "growth", CPU), proxies)
    return {
        "training step": lambda: step(state, seed=0, artefact="growth"),
        "sampling": lambda: process.sample(model, noise, y, sampling, generator("steps")),
        "CED": lambda: score("ced", context),
        "proxies": lambda: measure([()]),
    }


def cost(run: Callable[[], object]) -> dict[str, float]:
    """The median CPU seconds of three runs, and the peak bytes of the run before them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    held, peak = 0, 0
    for event in profiled.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return {"seconds": statistics.median(seconds), "bytes": peak}


def exponent(points: Sequence[Mapping[str, Any]], task: str, quantity: str) -> float:
    """The slope of log cost against log size, over the three largest sizes."""
    sizes = np.log([point["size"] for point in points[-3:]])
    costs = np.log([point["tasks"][task][quantity] for point in points[-3:]])
    return float(np.polyfit(sizes, costs, 1)[0])


# ----------------------------------------------------------------------------------------------------------------- arms


def planned(arms: int) -> dict[str, Any]:
    """CPU seconds of a dry run of the smoke study with so many seeds that it has this many arms."""
    smoke = ROOT / "params/smoke.yaml"
    one = len(ResolvedStudy(read_study([smoke])).arms)
    with TemporaryDirectory(prefix="entpruner-") as folder:
        overlay = Path(folder) / "seeds.yaml"
        overlay.write_text(yaml.safe_dump({"seeds": list(range(round(arms / one)))}))
        line = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--cores", "1", "--directory", folder]
        line += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(smoke), str(overlay)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"arms": one * round(arms / one), "seconds": usage.ru_utime - before}
    print(found, flush=True)
    return found


# ----------------------------------------------------------------------------------------------------------------- page


def draw(network: Mapping[str, Any], out: Path) -> None:
    """Time above and memory below, an axis in each column."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, len(network), figsize=(11, 5), sharey="row", layout="constrained")
    for column, axis in enumerate(AXES):
        points = network[axis]
        for row, (quantity, unit) in enumerate((("seconds", "CPU seconds"), ("bytes", "peak MiB"))):
            panel, scale = panels[row, column], 1 if quantity == "seconds" else 2**20
            for task in sorted(points[0]["tasks"]):
                costs = [point["tasks"][task][quantity] / scale for point in points]
                panel.loglog([point["size"] for point in points], costs, marker="o", label=task)
            panel.set_xticks([point["size"] for point in points], [point["size"] for point in points], minor=False)
            panel.minorticks_off()
            panel.set_xlabel(axis if row else "")
            panel.set_ylabel("" if column else unit)
    panels[0, 0].legend(fontsize="small")
    figure.savefig(out, metadata={"Date": None})


def page(content: Mapping[str, Any]) -> str:
    network = content["network"]
    lines, steepest = [], []
    for task in sorted(network["depth"][0]["tasks"]):
        found = {(q, axis): exponent(network[axis], task, q) for q in ("seconds", "bytes") for axis in AXES}
        lines.append(f"| {task} | " + " | ".join(f"{p:.2f}" for p in found.values()) + " |")
        (_, axis), p = max(((key, p) for key, p in found.items() if key[0] == "seconds"), key=lambda pair: pair[1])
        steepest.append(f"{task} with {axis} (p = {p:.2f})")
    machine = "{device}, torch {torch}, Python {python}".format(**content["machine"])
    text = [
        HEAD.format(machine=machine, **BASE) + "\n".join(lines),
        "",
        "Time grows fastest: " + ", ".join(steepest) + ".",
    ]
    if arms := content.get("arms"):
        sizes, seconds = np.log([one["arms"] for one in arms[-3:]]), np.log([one["seconds"] for one in arms[-3:]])
        p = float(np.polyfit(sizes, seconds, 1)[0])
        text += ["", "## Snakemake's planning", "", "A dry run of the smoke study with more seeds, from nothing:", ""]
        text += ["| arms | CPU seconds |", "|---|---|"]
        text += [f"| {one['arms']:,} | {one['seconds']:.1f} |" for one in arms]
        text += ["", f"The exponent of its time is {p:.2f}."]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
