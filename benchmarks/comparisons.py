"""What is compared: trainings, samplings, scores, proxies and commands, each in our way and in others."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import official
import torch
from side_by_side import Comparison
from torch import Tensor, nn
from trainers import Trainers

from entpruner.data.store import ImageSet
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Diffusion
from entpruner.params.compute import Compute
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Training
from entpruner.process import Process, make_process
from entpruner.proxies import NtkResult, ZicoResult
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.proxies.ntk import GramMatrices
from entpruner.proxies.per_sample import LayerGradients, take_gradients
from entpruner.proxies.zico import Batch, LossGradients
from entpruner.scores import ScoreContext, Scores, score
from entpruner.system.devices import without_tf32
from entpruner.system.randomness import generator
from entpruner.system.warm import ADDRESS
from entpruner.training.loop import train
from entpruner.training.state import TrainState

PLAIN = "the plain official form"


def network(shape: Architecture, device: torch.device, blocks: int | None = None) -> Transformer:
    """An initialised network. Its zero weights are made non-zero, so that every block matters."""
    random = generator("benchmark")
    model = Transformer(shape, None if blocks is None else tuple(range(blocks))).initialize(random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=random)
    return model.to(device)


def images_like(shape: Architecture, count: int) -> ImageSet:
    """Random images that fit the network, of all its classes in turn."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, shape.in_channels, shape.input_size, shape.input_size), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % shape.num_classes, shape.num_classes)


def noise_like(shape: Architecture, count: int, *keys: str) -> Tensor:
    """Standard normal noise (count, C, H, W), which follows from the keys."""
    return torch.randn(count, shape.in_channels, shape.input_size, shape.input_size, generator=generator(*keys))


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


# ----------------------------------------------------------------------------------------------- training and sampling


def training(
    name: str,
    shape: Architecture,
    process: Process,
    loss: official.LossOf,
    ways: Mapping[str, Compute],
    *,
    batch: int,
    steps: int,
    device: torch.device,
    bars: Mapping[str, float],
) -> Comparison:
    """``steps`` steps of our loop in each of the ways, with the drawing of batches, and as many of the plain form."""
    images = images_like(shape, 4 * batch)
    settings = Training(steps=steps, batch_size=batch, log_every=steps)
    x, y = (part.to(device) for part in images.batch(torch.arange(len(images))))
    step = official.trainer(network(shape, device), loss, x, y, batch)

    def trained(state: TrainState, compute: Compute) -> None:
        train(state, process, images, settings, start=0, stop=steps, seed=0, artefact="benchmark", compute=compute)

    def plain() -> None:
        for _ in range(steps):
            step()

    # Ways that are not compiled share one state. A compiled network stays compiled.
    states = {compiled: TrainState.start(network(shape, device)) for compiled in {way.compile for way in ways.values()}}
    ours = {name: partial(trained, states[compute.compile], compute) for name, compute in ways.items()}
    threads = next(iter(ways.values())).threads
    return Comparison(
        f"training, {name}, {steps} steps of {batch} images", {**ours, PLAIN: plain}, bars, threads=threads
    )


def processes(
    name: str, shape: Architecture, *, batch: int, steps: int, cpu_time: bool, bar: float | None = None
) -> Comparison:
    """``steps`` steps of two processes that share each batch, and as many of two that share only the cores.

    The latter each train a network of their own, and each makes half of the steps. Both ways compute on as many images
    and keep two cores busy, so their ratio is the price of sharing a batch: exchanging gradients, shorter batches, and
    an update of all weights in both processes. ``cpu_time``: the computing time of all processes is compared, which
    others on the machine hardly change.
    """
    shared = Trainers(shape, batch, steps, together=True)
    apart = Trainers(shape, batch, steps // 2, together=False)
    what = "CPU time of training" if cpu_time else "training"
    alone = "two that train apart, half of the steps each"
    return Comparison(
        f"{what}, {name}, {steps} steps of {batch} images in two processes",
        {"two processes that share each batch": shared.go_on, alone: apart.go_on},
        {} if bar is None else {alone: bar},
        clock=(lambda: shared.cpu_seconds() + apart.cpu_seconds()) if cpu_time else None,
    )


def sampling(
    name: str,
    shape: Architecture,
    process: Process,
    settings: Sampling,
    plain: official.Sampler,
    *,
    steps: int,
    device: torch.device,
    bar: float,
    threads: int = 1,
    compiled: bool = False,
) -> Comparison:
    """Guided images from the same noise. ``settings`` ask for ``steps`` steps, as the plain form makes them."""
    model, y = network(shape, device).eval(), torch.arange(settings.batch_size, device=device) % shape.num_classes
    noise = noise_like(shape, settings.batch_size, "sampling").to(device)

    def sampled(model: BlockNetwork) -> Tensor:
        return process.sample(model, noise, y, settings, generator("steps"))

    def other() -> Tensor:
        return plain(model, noise, y, settings.guidance, steps, generator("steps"))

    ways = {"our sampler": partial(sampled, model)}
    if compiled:
        faster = network(shape, device).eval()
        faster.compile_blocks()
        ways = {"our sampler, compiled": partial(sampled, faster), **ways}
    with without_tf32():
        difference = largest_difference(next(iter(ways.values()))(), other())
    title = f"sampling, {name}, {steps} steps of {settings.batch_size} images"
    return Comparison(title, {**ways, PLAIN: other}, {PLAIN: bar}, {PLAIN: difference}, threads, rounds=3)


# -------------------------------------------------------------------------------------------------- scores and proxies


def ced(shape: Architecture, draws: int, batch: int, device: torch.device) -> Comparison:
    """CED of all blocks from the same draws: what lies before a block is computed once, or for every block again."""
    model = network(shape, device)
    without = [drop_blocks(model, {block}) for block in model.kept_blocks]
    context = ScoreContext(
        model=model,
        process=make_process(Diffusion()),
        images=images_like(shape, draws),
        settings=Scoring(draws=draws, batch_size=batch),
        sampling=Sampling(),
        seed=0,
        artefact="benchmark",
        device=device,
    )

    @torch.no_grad()
    def full_forwards(model: BlockNetwork, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        yield None, model(x_t, t, y)
        for position, pruned in enumerate(without):
            yield position, pruned(x_t, t, y)

    def ours() -> Scores:
        return score("ced", context)

    def by_hand() -> Scores:
        with mock.patch("entpruner.models.network.PartedNetwork.removals", full_forwards):
            return score("ced", context)

    difference = largest_difference(torch.tensor(ours().value), torch.tensor(by_hand().value))
    other = "a full forward without each block"
    title = f"CED, {shape.depth} blocks of {shape.hidden_size}, {draws} draws"
    ways = {"by what lies before each block": ours, other: by_hand}
    return Comparison(title, ways, {other: 1 / 0.6}, {other: difference})


class MeanGradients(LossGradients):
    """The gradients themselves, which ZiCo is made of, as the plain form has them."""

    def __init__(self, process: Process, batch: Batch) -> None:
        super().__init__(process, [batch])
        self.found: dict[str, Tensor] = {}

    def take(self, candidate: int, gradients: LayerGradients) -> None:
        if not isinstance(gradients.layer, nn.Embedding):
            self.found[gradients.name] = gradients.d.flatten(0, 1).T @ gradients.a.flatten(0, 1)


def proxies(shape: Architecture, count: int, device: torch.device) -> Comparison:
    """The Gram matrix of the NTK and the gradients of ZiCo for one batch."""
    model, process = network(shape, device), make_process(Diffusion())
    x, noise = (noise_like(shape, count, name).to(device) for name in ("x", "noise"))
    t = process.draw_times(count, generator("times"), stratified=True).to(device)
    y = torch.arange(count, device=device) % shape.num_classes
    x_t = process.add_noise(x, noise, t)
    weights = [p for name, p in model.named_parameters() if p.requires_grad and "weight" in name]
    layers = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    ones = torch.ones(1, 2 * shape.in_channels, *x.shape[2:])

    def losses(rows: slice = slice(None)) -> Tensor:
        return process.losses(model, x[rows], noise[rows], t[rows], y[rows])["loss"]

    def outputs(rows: slice) -> Tensor:
        return model(x_t[rows], t[rows], y[rows]).flatten(1).sum(1)

    def ours() -> tuple[Tensor, list[Tensor]]:
        grams, means = GramMatrices(x_t, t, y, ones), MeanGradients(process, (x, noise, t, y))
        take_gradients(model, [range(shape.depth)], grams, means)
        return grams.gram(0), [means.found[name].view_as(weight) for name, weight in layers.items()]

    def loop(alone: bool) -> tuple[Tensor, list[Tensor]]:
        return official.proxies(outputs, losses, weights, list(layers.values()), count, alone)

    def one_pass() -> None:
        losses().mean().backward()
        model.zero_grad()

    with without_tf32():
        (gram, gradients), (gram_by_loop, gradients_by_loop) = ours(), loop(alone=True)
    pairs = [(gram, gram_by_loop), *zip(gradients, gradients_by_loop, strict=True)]
    published = "two backward passes a sample through the batch, as published"
    each = "two backward passes a sample through that sample"
    one = "one forward and backward"
    ways = {
        "both in one pass": ours,
        published: partial(loop, alone=False),
        each: partial(loop, alone=True),
        one: one_pass,
    }
    title = f"NTK and ZiCo of {count} samples, {shape.depth} blocks of {shape.hidden_size}"
    return Comparison(
        title, ways, {published: 15.0, one: 0.5}, {each: max(largest_difference(*pair) for pair in pairs)}
    )


def vote(shape: Architecture, device: torch.device) -> Comparison:
    """Both proxies of the three candidates of a vote: none, two and three of the blocks are dropped."""
    model, process = network(shape, device), make_process(Diffusion())
    samples = ProxySamples(process, images_like(shape, 64), 0, "benchmark", device)
    measure = measure_on(model, process, samples, Proxies())
    order = [shape.depth * twelfths // 12 for twelfths in (8, 9, 5)]  # as in the first vote of digits' published run
    candidates = [order[:removed] for removed in (0, 2, 3)]

    def alone() -> list[tuple[NtkResult, ZicoResult]]:
        return [result for candidate in candidates for result in measure([candidate])]

    numbers = [
        torch.tensor([(ntk.log10_kappa, zico.value) for ntk, zico in found], dtype=torch.float64)
        for found in (measure(candidates), alone())
    ]
    one, three = "one candidate", "three candidates, one after the other"
    ways = {"three candidates in one go": lambda: measure(candidates), one: lambda: measure([()]), three: alone}
    title = f"a vote by NTK and ZiCo, {shape.depth} blocks of {shape.hidden_size}"
    return Comparison(title, ways, {one: 0.5}, {three: largest_difference(*numbers)})


# ---------------------------------------------------------------------------------------------------------- commands


def commands() -> Comparison:
    """A short score of digits as a whole command: a child of the warm process, or a process of its own."""
    temporary = TemporaryDirectory(prefix="entpruner-")  # deleted with the last function that refers to it
    common = {"seed": 0, "artefact": "benchmark", "compute": {"device": "cpu"}}
    shape = {"depth": 12, "hidden_size": 64, "num_heads": 4, "patch_size": 4}
    backbone = {
        "backbone": {"process": {"kind": "flow"}, **shape},
        "training": {"steps": 1, "batch_size": 8},
        "stop": 1,
    }
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
        assert Path(temporary.name).exists()
        command("score", common | scoring, environment, store=store, init=init, out=scores)
        return (scores / "scores.json").read_bytes()

    warm, fresh = "by the warm process", "in a process of its own"
    same = scored(dict(os.environ)) == scored(own)
    ways = {warm: lambda: scored(dict(os.environ)), fresh: lambda: scored(own)}
    return Comparison("a short score, as a command", ways, {fresh: 2.0}, {fresh: 0.0 if same else float("inf")})
