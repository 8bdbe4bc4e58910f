"""How fast a machine does a study's FLOPs: a GPU by its data sheet, or this machine by trials of some seconds."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from entpruner.data.store import ImageSet
from entpruner.evaluation.cost import clock
from entpruner.models.checkpoints import build
from entpruner.params.backbones import UNetArchitecture
from entpruner.params.scoring import Scoring
from entpruner.planning.gpus import Gpu
from entpruner.process import make_process
from entpruner.scores import ScoreContext, score
from entpruner.sizes.work import Speed
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.devices import configure
from entpruner.system.randomness import generator
from entpruner.training.loop import train
from entpruner.training.state import TrainState

TRIAL_FLOPS = {"cpu": 2e11, "cuda": 1e14}
"""FLOPs of one run of a trial, at most: about a second, or one image."""
REPEATS, ENOUGH = 5, 3.0
"""A trial has so many runs, or as many as take so many seconds."""
IMAGES = 1024
SAMPLER_STEPS = 4


def on_gpu(gpu: Gpu, utilisation: float) -> Speed:
    """All kinds of work at the same share of their peaks. TF32 has half the peak of bfloat16 on all of these GPUs."""
    bf16, tf32, float32 = (1e12 * peak * utilisation for peak in (gpu.bf16, gpu.bf16 / 2, gpu.float32))
    return Speed(bf16, tf32, float32, f"{gpu.name} at {utilisation:.0%} of its peaks", gpu.memory * 1e9)


def on_this_machine(study: ResolvedStudy) -> Speed:
    """Measured by the study's own code and settings, on the dearest of its transformers and on made-up images.

    Batches are smaller than the study's where a run would take long.
    """
    networks = [study.network(backbone, "upstream") for backbone in study.params.backbones]
    transformers = [net for net in networks if not isinstance(net.architecture, UNetArchitecture)]
    network = max(transformers, key=lambda net: net.forward(net.depth))
    a, depth, device = network.architecture, network.depth, configure(study.params.compute)
    pixels = np.random.default_rng(0).integers(256, size=(IMAGES, a.in_channels, a.input_size, a.input_size))
    images = ImageSet(pixels.astype(np.uint8), np.arange(IMAGES) % a.num_classes, a.num_classes)
    process = make_process(network.process)
    model = build(a).initialize(generator("plan")).to(device).eval()

    def affordable(wanted: int, flops: float) -> int:
        return max(1, min(wanted, int(TRIAL_FLOPS[device.type] / flops)))

    def training() -> float:
        one, settings = network.step(depth), study.params.finetune
        batch = affordable(settings.batch_size, one)
        settings = settings.model_copy(update={"steps": 1, "warmup_steps": 0, "batch_size": batch})
        state = TrainState.start(build(a).initialize(generator("plan")), settings.optimizer)
        run = partial(train, state, process, images, settings, start=0, stop=1, seed=0, artefact="plan")
        return batch * one / fastest(partial(run, compute=study.params.compute), device)

    def sampling() -> float:
        """A batch of images in a few steps; by Euler's where the sampler would choose its own."""
        given = study.params.sampling
        flow = "euler" if given.flow.name == "dopri5" else given.flow.name
        settings = given.model_copy(
            update={
                "diffusion": given.diffusion.model_copy(update={"steps": SAMPLER_STEPS}),
                "flow": given.flow.model_copy(update={"name": flow, "steps": SAMPLER_STEPS}),
            }
        )
        one = network.sampled(depth, settings)
        batch = affordable(settings.batch_size, one)
        noise = torch.zeros(batch, a.in_channels, a.input_size, a.input_size, device=device)
        y = torch.zeros(batch, dtype=torch.int64, device=device)
        return batch * one / fastest(lambda: process.sample(model, noise, y, settings, torch.Generator()), device)

    def measuring() -> float:
        """CED on a batch of draws."""
        given = study.params.scoring
        one = network.scores("ced", Scoring(draws=1), study.params.sampling, depth, 0).measuring
        draws = affordable(min(given.draws, given.batch_size), one)
        settings = Scoring(draws=draws, batch_size=draws)
        context = ScoreContext(
            model=model,
            process=process,
            images=images,
            settings=settings,
            sampling=study.params.sampling,
            seed=0,
            artefact="plan",
            device=device,
        )
        return draws * one / fastest(partial(score, "ced", context), device)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    return Speed(training(), sampling(), measuring(), f"{name}, measured now")


def fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some runs. On the CPU its own seconds count, so that others hardly slow the trial."""

    def now() -> float:
        return clock(device) if device.type == "cuda" else time.process_time() / torch.get_num_threads()

    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH:
        began = now()
        run()
        seconds.append(now() - began)
    return min(seconds)
