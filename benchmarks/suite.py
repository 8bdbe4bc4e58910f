"""How fast this package is on the CPU at hand, always against another way of the same thing: `make bench`.

    python benchmarks/suite.py [NAME ...] [--rounds 5]

The ways of a figure take turns in one process. Each figure is written as soon as it is known, to
benchmarks/results/cpu-<processor>.json, and docs/benchmarks.md is made of these files. With names, only these figures
are measured, and the others stay as they are.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import official
import torch
from side_by_side import DIGITS, SMALL, Comparison, measured, network
from torch import Tensor, nn

from entpruner.data.store import ImageSet
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks
from entpruner.params.backbones import Architecture, Diffusion, Flow
from entpruner.params.compute import Compute
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Training
from entpruner.process import Process, make_process
from entpruner.proxies.ntk import gram_matrix
from entpruner.proxies.zico import RunningGradient
from entpruner.scores import ScoreContext, Scores, score
from entpruner.system.files import read_json, write_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Stopwatch
from entpruner.system.warm import ADDRESS
from entpruner.training.loop import train
from entpruner.training.state import TrainState

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/benchmarks.md"
HEAD = """# Benchmarks

`make bench` writes this page, from the files `benchmarks/results/cpu-*.json` that it measures. Every number is a ratio
of two times of one process, in which both ways take turns. A ratio above 1 says that ours is faster. Networks have
random weights, which changes no time. `benchmarks/official.py` holds the plain form of training steps, samplers and
proxies, written from their descriptions.
"""
CPU = torch.device("cpu")
PLAIN = "the plain official form"


# ---------------------------------------------------------------------------------------------------------- training


def training(title: str, shape: Architecture, process: Process, loss: official.LossOf, **sizes: int) -> Comparison:
    """Steps of our loop, with the drawing of their batches, against those of the plain form."""
    batch, steps = sizes["batch"], sizes["steps"]
    images = images_like(shape, 4 * batch)
    settings = Training(steps=steps, batch_size=batch, log_every=steps)
    state = TrainState.start(network(shape, CPU))
    compute = Compute(device="cpu", threads=sizes["threads"])
    x, y = images.batch(torch.arange(len(images)))
    step = official.trainer(network(shape, CPU), loss, x, y, batch)

    def ours() -> None:
        train(state, process, images, settings, start=0, stop=steps, seed=0, artefact="benchmark", compute=compute)

    def plain() -> None:
        for _ in range(steps):
            step()

    title = f"a training step, {title}"
    return Comparison(title, {"our loop": ours, PLAIN: plain}, {PLAIN: 0.95}, threads=sizes["threads"])


def images_like(shape: Architecture, count: int) -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(256, size=(count, shape.in_channels, *2 * (shape.input_size,)), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % shape.num_classes, shape.num_classes)


# ---------------------------------------------------------------------------------------------------------- sampling


def sampling(title: str, process: Process, settings: Sampling, plain: Callable[..., Tensor], bar: float) -> Comparison:
    """Guided images of DiT-S/2 or SiT-S/2 from the same noise. The plain form computes the same numbers."""
    model, y = network(SMALL, CPU).eval(), torch.arange(settings.batch_size)
    side = SMALL.input_size
    noise = torch.randn(settings.batch_size, SMALL.in_channels, side, side, generator=generator("noise"))

    def ours() -> Tensor:
        return process.sample(model, noise, y, settings, generator("steps"))

    def other() -> Tensor:
        return plain(model, noise, y, settings.guidance, STEPS, generator("steps"))

    found, expected = ours(), other()
    difference = float((found - expected).abs().max() / expected.abs().max())
    title = f"sampling, {title}, {STEPS} steps of {settings.batch_size} images"
    return Comparison(title, {"our sampler": ours, PLAIN: other}, {PLAIN: bar}, difference, threads=2, rounds=3)


# ------------------------------------------------------------------------------------------------- scores and proxies


def ced(shape: Architecture, draws: int, bar: float) -> Comparison:
    """CED of all blocks from the same draws: what lies before a block is computed once, or for every block again."""
    model = network(shape, CPU)
    without = [drop_blocks(model, {block}) for block in model.kept_blocks]
    settings = Scoring(draws=draws, batch_size=128)
    context = ScoreContext(
        model=model,
        process=make_process(Diffusion()),
        images=images_like(shape, draws),
        settings=settings,
        sampling=Sampling(),
        seed=0,
        artefact="benchmark",
        device=CPU,
    )

    @torch.no_grad()
    def full_forwards(model: BlockNetwork, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        yield None, model(x_t, t, y)
        for position, pruned in enumerate(without):
            yield position, pruned(x_t, t, y)

    def ours() -> Scores:
        return score("ced", context)

    def by_hand() -> Scores:
        with mock.patch("entpruner.scores.prefix.removal_outputs", full_forwards):
            return score("ced", context)

    found, expected = ours().value, by_hand().value
    difference = max(abs(a - b) for a, b in zip(found, expected, strict=True)) / max(expected)
    other = "a full forward without each block"
    title = f"CED of {shape.depth} blocks of {shape.hidden_size}, {draws} draws"
    return Comparison(title, {"by what lies before each block": ours, other: by_hand}, {other: bar}, difference)


def proxies(shape: Architecture, count: int = 16) -> Comparison:
    """The Gram matrix of the NTK and the gradients of ZiCo for one batch."""
    model, process = network(shape, CPU), make_process(Diffusion())
    random = generator("proxies")
    x, noise = torch.randn(2, count, shape.in_channels, *2 * (shape.input_size,), generator=random)
    t = process.draw_times(count, random, stratified=True)
    y = torch.randint(shape.num_classes, (count,), generator=random)
    x_t = process.add_noise(x, noise, t)
    weights = [p for name, p in model.named_parameters() if p.requires_grad and "weight" in name]
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    probe = torch.ones(2 * shape.in_channels, *2 * (shape.input_size,))

    def losses(rows: slice = slice(None)) -> Tensor:
        return process.losses(model, x[rows], noise[rows], t[rows], y[rows])["loss"]

    def outputs(rows: slice) -> Tensor:
        return model(x_t[rows], t[rows], y[rows]).flatten(1).sum(1)

    def ours() -> tuple[Tensor, list[Tensor]]:
        gram = gram_matrix(model, x_t, t, y, [probe])
        gradients = torch.autograd.grad(losses().mean(), layers)
        for layer, gradient in zip(layers, gradients, strict=True):
            RunningGradient(layer).add(gradient)
        return gram, list(gradients)

    def loop(alone: bool) -> tuple[Tensor, list[Tensor]]:
        return official.proxies(outputs, losses, weights, layers, count, alone)

    def one_pass() -> None:
        losses().mean().backward()
        model.zero_grad()

    (gram, gradients), (gram_by_loop, gradients_by_loop) = ours(), loop(alone=True)
    pairs = [(gram, gram_by_loop), *zip(gradients, gradients_by_loop, strict=True)]
    published = "two backward passes a sample through the batch, as published"
    ways = {
        "by hooks": ours,
        published: lambda: loop(alone=False),
        "two backward passes a sample through that sample": lambda: loop(alone=True),
        "one forward and backward": one_pass,
    }
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    title = f"NTK and ZiCo of {count} samples, {shape.depth} blocks of {shape.hidden_size}"
    return Comparison(title, ways, {published: 5.0}, difference)


# ---------------------------------------------------------------------------------------------------------- commands


def commands() -> Comparison:
    """A short score of digits as a whole command: a child of the warm process, or a process of its own."""
    temporary = TemporaryDirectory(prefix="entpruner-")  # it goes when nobody refers to it any more
    common = {"seed": 0, "artefact": "benchmark", "compute": {"device": "cpu"}}
    shape = {"depth": 12, "hidden_size": 64, "num_heads": 4, "patch_size": 4}
    backbone = {"backbone": {"process": {"kind": "flow"}, **shape}, "training": {"steps": 1, "batch_size": 8}}
    scoring = {"criterion": "ced", "scoring": {"draws": 128, "batch_size": 128}}
    own = {name: value for name, value in os.environ.items() if name != ADDRESS}

    def command(rule: str, settings: dict[str, Any], environment: dict[str, str], **paths: Path) -> None:
        options = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
        arguments = [sys.executable, "-m", "entpruner.cli", "rule", rule, "--settings", json.dumps(settings), *options]
        subprocess.run(arguments, env=environment, stderr=subprocess.DEVNULL, check=True)

    store, init, scores = (Path(temporary.name) / name for name in ("store", "model", "scores"))
    command("data", {"dataset": {"source": "digits"}}, own, out=store)
    command("pretrain", common | backbone, own, store=store, out=init)

    def scored(environment: dict[str, str]) -> bytes:
        assert temporary
        command("score", common | scoring, environment, store=store, init=init, out=scores)
        return (scores / "scores.json").read_bytes()

    warm, fresh = "by the warm process", "in a process of its own"
    same = scored(dict(os.environ)) == scored(own)
    ways = {warm: lambda: scored(dict(os.environ)), fresh: lambda: scored(own)}
    return Comparison("a short score, as a command", ways, {fresh: 2.0}, 0.0 if same else float("inf"))


# -------------------------------------------------------------------------------------------------------- the figures


STEPS = 5  # of a sampler: its time is proportional to them
LATENTS = {"batch": 8, "steps": 2, "threads": 2}
DRAWN = Sampling(
    samples=4, batch_size=4, diffusion=DiffusionSampler(steps=STEPS), flow=FlowSampler(name="euler", steps=STEPS)
)
BY_SDE = DRAWN.model_copy(update={"flow": FlowSampler(name="sde", steps=STEPS)})
DIFFUSION, FLOW = make_process(Diffusion()), make_process(Flow())

FIGURES: dict[str, Callable[[], Comparison]] = {
    "train_dit": lambda: training("DiT-S/2, 8 latents", SMALL, DIFFUSION, official.Diffusion().loss, **LATENTS),
    "train_sit": lambda: training("SiT-S/2, 8 latents", SMALL, FLOW, official.flow_loss, **LATENTS),
    "train_digits": lambda: training(
        "DiT of digits, 64 images", DIGITS, DIFFUSION, official.Diffusion().loss, batch=64, steps=10, threads=1
    ),
    "sample_ddpm": lambda: sampling("DDPM, DiT-S/2", DIFFUSION, DRAWN, official.ddpm, bar=0.95),
    "sample_euler": lambda: sampling("Euler, SiT-S/2", FLOW, DRAWN, official.euler, bar=0.95),
    "sample_sde": lambda: sampling("SDE, SiT-S/2", FLOW, BY_SDE, official.sde, bar=1.9),
    "ced_12": lambda: ced(DIGITS, draws=512, bar=1 / 0.6),
    "ced_28": lambda: ced(DIGITS.model_copy(update={"depth": 28}), draws=256, bar=1 / 0.6),
    "proxies": lambda: proxies(DIGITS),
    "commands": commands,
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
    difference = figure["difference"]
    for other, found in figure["times_as_fast"].items():
        bar = figure["bars"].get(other)
        missed = " (missed)" if bar is not None and found["median"] < bar else ""
        yield [
            figure["title"],
            f"{figure['ours']}, against {other}",
            f"{found['median']:.2f}×",
            f"{found['low']:.2f}–{found['high']:.2f}",
            "" if bar is None else f"≥ {bar:.2f}×{missed}",
            "" if difference is None else f"{difference:.1g}",
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
