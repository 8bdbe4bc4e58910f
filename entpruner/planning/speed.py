"""How fast a machine does a study's FLOPs: a GPU by its data sheet, or this machine by trials of some seconds."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from entpruner.data.store import ImageSet
from entpruner.evaluation.classifier import Classifier
from entpruner.evaluation.cost import clock
from entpruner.evaluation.extractors import IMAGENET_SIDE
from entpruner.evaluation.fidelity import frechet_distance
from entpruner.models.checkpoints import build
from entpruner.params.evaluation import ClassifierExtractor, TorchvisionExtractor
from entpruner.params.scoring import Scoring
from entpruner.planning import fits
from entpruner.planning.gpus import Gpu
from entpruner.planning.networks import Network, Speed
from entpruner.planning.work import Planned
from entpruner.process import make_process
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.scores import ScoreContext, score
from entpruner.system.devices import configure
from entpruner.system.provenance import code_digest
from entpruner.system.randomness import generator
from entpruner.training.loop import train
from entpruner.training.state import TrainState

PROCESSOR = 2e10
"""FLOP/s of fits beside a GPU. Measured on one core of an AMD EPYC: 1.5e10 and 2.7e10 at 512 and 1,024 features."""
TRIAL_FLOPS = {"cpu": 2e11, "cuda": 1e14}  # of one run of a trial, at most: a second or so, or one image
REPEATS, ENOUGH = 5, 3.0  # runs of a trial, or as many as take so many seconds
IMAGES = 1024
SAMPLER_STEPS = 4
INCEPTION_SIDE = 299
FIT_FEATURES = 512  # at most: a distance of more would take minutes


def on_gpu(gpu: Gpu, utilisation: float) -> Speed:
    """All at the same share of their peaks: trainings in bfloat16, samplings in TF32, measures in float32."""
    bf16, tf32, float32 = (1e12 * peak * utilisation for peak in (gpu.bf16, gpu.tf32, gpu.float32))
    return Speed(
        training=bf16,
        sampling=tf32,
        scoring=float32,
        proxies=float32,
        features=float32,
        fits=PROCESSOR,
        machine=f"{gpu.name} at {utilisation:.0%} of its peaks",
        memory=gpu.memory * 1e9,
    )


def on_this_machine(planned: Planned) -> Speed:
    """Measured by the study's own code, settings and batch sizes, smaller ones where a run would take long; on the
    dearest of its transformers."""
    networks = [planned.network(backbone, "upstream") for backbone in planned.study.backbones]
    network = max((n for n in networks if n.transformer), key=lambda n: n.forward(n.depth))
    trial = Trial(planned, network)
    rates = {
        "training": trial.training(),
        "sampling": trial.sampling(),
        "scoring": trial.scoring(),
        "proxies": trial.proxies(),
        "features": trial.features(),
        "fits": trial.fits(),
    }
    cuda = trial.device.type == "cuda"
    name = torch.cuda.get_device_name(trial.device) if cuda else f"{torch.get_num_threads()} CPU thread(s)"
    return Speed(**rates, start=trial.start(), machine=f"{name}, measured now")


class Trial:
    """Some work of each kind by one network on made-up images; FLOP/s of the fastest of some runs."""

    def __init__(self, planned: Planned, network: Network) -> None:
        self.planned, self.study, self.network = planned, planned.study, network
        self.device = configure(planned.study.compute)
        a = network.architecture
        shape = (IMAGES, a.in_channels, a.input_size, a.input_size)
        pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        self.images = ImageSet(pixels, np.arange(IMAGES) % a.num_classes, a.num_classes)
        self.process = make_process(network.process)
        self.model = build(a).initialize(generator("plan")).to(self.device).eval()

    def affordable(self, wanted: int, flops: float) -> int:
        """So many images, or as many as a run may have that takes so many FLOPs an image."""
        return max(1, min(wanted, int(TRIAL_FLOPS[self.device.type] / flops)))

    def rate(self, flops: float, run: Callable[[], object]) -> float:
        return flops / fastest(run, self.device)

    def training(self) -> float:
        """An optimizer step."""
        step, settings = self.network.step(self.network.depth), self.study.finetune
        batch = self.affordable(settings.batch_size, step)
        settings = settings.model_copy(update={"steps": 1, "warmup_steps": 0, "batch_size": batch})
        state = TrainState.start(build(self.network.architecture).initialize(generator("plan")))
        run = partial(train, state, self.process, self.images, settings, start=0, stop=1)
        return self.rate(batch * step, partial(run, seed=0, artefact="plan", compute=self.study.compute))

    def sampling(self) -> float:
        """A batch of images in a few steps; by Euler's where the sampler would choose its own."""
        given = self.study.sampling
        flow = "euler" if given.flow.name == "dopri5" else given.flow.name
        settings = given.model_copy(
            update={
                "diffusion": given.diffusion.model_copy(update={"steps": SAMPLER_STEPS}),
                "flow": given.flow.model_copy(update={"name": flow, "steps": SAMPLER_STEPS}),
            }
        )
        one, a = self.network.sampled(self.network.depth, settings), self.network.architecture
        batch = self.affordable(settings.batch_size, one)
        noise = torch.zeros(batch, a.in_channels, a.input_size, a.input_size, device=self.device)
        y = torch.zeros(batch, dtype=torch.int64, device=self.device)
        return self.rate(batch * one, lambda: self.process.sample(self.model, noise, y, settings, torch.Generator()))

    def scoring(self) -> float:
        """CED on a batch of draws."""
        given, depth = self.study.scoring, self.network.depth
        one = self.network.scores("ced", given.model_copy(update={"draws": 1}), self.study.sampling, depth, 0).scoring
        draws = self.affordable(min(given.draws, given.batch_size), one)
        settings = Scoring(draws=draws, batch_size=draws)
        context = ScoreContext(
            self.model, self.process, self.images, settings, self.study.sampling, 0, "plan", self.device
        )
        return self.rate(draws * one, partial(score, "ced", context))

    def proxies(self) -> float:
        """Both of the whole network, as a vote asks for them of each candidate."""
        given, one = self.study.proxies, 3 * self.network.forward(self.network.depth)
        ntk = given.ntk.model_copy(update={"samples": max(2, self.affordable(given.ntk.samples, one))})
        batch = self.affordable(given.zico.batch_size, one)
        batches = max(2, self.affordable(given.zico.batches, batch * one))
        zico = given.zico.model_copy(update={"batch_size": batch, "batches": batches})
        settings = given.model_copy(update={"ntk": ntk, "zico": zico})
        samples = ProxySamples(self.process, self.images, 0, "plan", self.device)
        measure = measure_on(self.model, self.process, samples, settings)
        return self.rate(self.network.proxied(self.network.depth, settings).proxies, partial(measure, ()))

    def features(self) -> float:
        """The feature net that tables show first, with random weights."""
        extractor = next(iter(self.study.evaluation.extractors.values()))
        one = self.planned.net(extractor, "upstream")
        batch = self.affordable(self.study.evaluation.batch_size, one)
        if isinstance(extractor, ClassifierExtractor):
            shape, data = self.study.evaluation.classifier, self.study.datasets["upstream"]
            net: nn.Module = Classifier(
                in_channels=data.channels, num_classes=2, width=shape.width, features=shape.features
            )
            channels, side = data.channels, data.image_size
        else:
            from torchvision import models  # slow to import, and known to few studies

            name, side = "inception_v3", INCEPTION_SIDE
            if isinstance(extractor, TorchvisionExtractor):
                name, side = extractor.model, IMAGENET_SIDE
            net, channels = models.get_model(name), 3
        x = torch.zeros(batch, channels, side, side, device=self.device)
        return self.rate(batch * one, partial(torch.inference_mode()(net.to(self.device).eval()), x))

    def fits(self) -> float:
        """A Fréchet distance."""
        width = min(FIT_FEATURES, max(map(self.planned.width, self.study.evaluation.extractors.values())))
        n = 2 * width
        features = torch.rand(2, n, width, generator=generator("plan"), dtype=torch.float64)
        return self.rate(fits.frechet(n, n, width), partial(frechet_distance, *features))

    def start(self) -> float:
        """Seconds before and after a command's work: nearly all is reading the code that it runs, for its digest."""
        began = time.process_time()
        code_digest("entpruner.commands.evaluate")
        return time.process_time() - began


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
