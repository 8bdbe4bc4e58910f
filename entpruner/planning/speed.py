"""How fast a machine does a study's FLOPs: a GPU by its data sheet, or this machine by a trial of some seconds."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from entpruner.compute import configure
from entpruner.data.store import ImageSet
from entpruner.evaluation.cost import clock
from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture
from entpruner.params.study import Study
from entpruner.planning.gpus import Gpu
from entpruner.planning.networks import Network, Work
from entpruner.planning.work import Planned
from entpruner.process import make_process
from entpruner.randomness import generator
from entpruner.training.loop import train
from entpruner.training.state import TrainState

TRIAL_FLOPS = {"cpu": 2e11, "cuda": 1e14}  # of one step or forward pass of the trial, at most: a second or so
REPEATS = 10


class Speed(NamedTuple):
    """FLOP/s of each kind of ``Work``."""

    training: float
    forward: float
    features: float
    machine: str
    """What it is, and at what utilisation, in words."""

    def seconds(self, work: Work) -> float:
        return work.training / self.training + work.forward / self.forward + work.features / self.features


def on_gpu(gpu: Gpu, utilisation: float) -> Speed:
    """Training and sampling in bf16, features in float32, all at the same share of their peaks."""
    bf16, float32 = (1e12 * peak * utilisation for peak in (gpu.bf16, gpu.float32))
    share = f"{gpu.name} at {utilisation:.0%} of {gpu.bf16:g} TFLOP/s (bf16; features: of {gpu.float32:g}, float32)"
    return Speed(bf16, bf16, float32, share)


def on_this_machine(planned: Planned) -> Speed:
    """Measured on the dearest of the study's transformers, by its own training loop and batch sizes, smaller ones where
    a single step would take long. The feature nets are taken to be as fast as its forward pass."""
    study = planned.study
    networks = [planned.network(backbone, "upstream") for backbone in study.backbones]
    network = max((n for n in networks if n.transformer), key=lambda n: n.forward(n.depth))
    device = configure(study.compute)
    step, forward = network.step(network.depth), network.forward(network.depth)
    most = TRIAL_FLOPS[device.type]
    batch = max(1, min(study.finetune.batch_size, int(most / step)))
    training = batch * step / fastest(steps(study, network, batch), device)
    batch = max(1, min(2 * study.sampling.batch_size, int(most / forward)))
    passing = batch * forward / fastest(passes(network, batch, device), device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    rates = f"{training / 1e9:.3g} GFLOP/s in training, {passing / 1e9:.3g} in forward passes"
    return Speed(training, passing, passing, f"{name}, measured now: {rates}")


def fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some runs. On the CPU its own seconds count, so that others hardly slow the trial."""

    def now() -> float:
        return clock(device) if device.type == "cuda" else time.process_time() / torch.get_num_threads()

    seconds = []
    for _ in range(REPEATS):
        began = now()
        run()
        seconds.append(now() - began)
    return min(seconds)


def steps(study: Study, network: Network, batch: int) -> Callable[[], object]:
    """An optimizer step of this network on made-up images, again and again."""
    a = network.architecture
    random = np.random.default_rng(0)
    images = random.integers(256, size=(4 * batch, a.in_channels, a.input_size, a.input_size), dtype=np.uint8)
    fake = ImageSet(images, np.arange(len(images)) % a.num_classes, a.num_classes)
    settings = study.pretrain.model_copy(update={"steps": 1, "warmup_steps": 0, "batch_size": batch})
    state = TrainState.start(built(network))
    run = partial(train, state, make_process(network.process), fake, settings, start=0, stop=1)
    return partial(run, seed=0, artefact="plan", compute=study.compute)


def passes(network: Network, batch: int, device: torch.device) -> Callable[[], object]:
    """A forward pass, likewise."""
    a = network.architecture
    x = torch.zeros(batch, a.in_channels, a.input_size, a.input_size, device=device)
    t, y = torch.zeros(batch, device=device), torch.zeros(batch, dtype=torch.int64, device=device)
    return partial(torch.inference_mode()(built(network).to(device).eval()), x, t, y)


def built(network: Network) -> BlockNetwork:
    assert isinstance(network.architecture, Architecture)
    return Transformer(network.architecture).initialize(generator("plan"))
