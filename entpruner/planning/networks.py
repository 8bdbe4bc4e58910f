"""What one pass of a network, one step of its training and one score of its blocks cost, as FLOPs."""

from dataclasses import dataclass, fields
from typing import NamedTuple

from entpruner.models.arithmetic import macs, parameters_of, step_macs, unet_macs
from entpruner.params.arms import Criterion
from entpruner.params.backbones import Architecture, Diffusion, ProcessSettings, UNetArchitecture
from entpruner.params.criteria import cost_of
from entpruner.params.proxies import Ntk, Proxies, Zico
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning

DOPRI5_EVALUATIONS = 100
"""Of the network, an image: an assumption, as the solver chooses its own steps."""

KINDS = ("training", "sampling", "scoring", "proxies", "features", "fits")
SHARED_KINDS = ("training", "sampling", "features")
"""What several processes do together; the first does the rest of a job alone."""


@dataclass(frozen=True)
class Work:
    """What a job computes and leaves behind: FLOPs by kind, as a machine does each at a speed of its own."""

    steps: int = 0
    """Optimizer steps."""
    training: float = 0.0
    """FLOPs of trainings: bfloat16 on a GPU."""
    sampling: float = 0.0
    """Of samplings and autoencoders: TF32 on a GPU."""
    scoring: float = 0.0
    """Of scores: float32, whatever the device; so are the next two."""
    proxies: float = 0.0
    """Of NTK and ZiCo: small batches, and gradients of every sample."""
    features: float = 0.0
    """Of feature nets, the study's own and its training among them: convolutions are as fast there."""
    fits: float = 0.0
    """Of distances between features: float64, on the processor, whatever the device."""
    disk: float = 0.0
    """Bytes that stay."""

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Work)))

    def __mul__(self, times: int) -> "Work":
        return Work(*(getattr(self, field.name) * times for field in fields(Work)))

    @property
    def flops(self) -> float:
        return sum(getattr(self, kind) for kind in KINDS)


class Speed(NamedTuple):
    """FLOP/s of each kind of ``Work``."""

    training: float
    sampling: float
    scoring: float
    proxies: float
    features: float
    fits: float
    start: float = 0.0
    """Seconds that each command takes beside its work."""
    machine: str = ""
    """What it is, and at what utilisation, in words."""
    memory: float | None = None
    """Bytes of a GPU's memory, where one is named."""

    def seconds(self, work: Work, processes: int = 1) -> float:
        """Of a job that so many processes share."""
        taken = {kind: getattr(work, kind) / getattr(self, kind) for kind in KINDS}
        shared = sum(taken[kind] for kind in SHARED_KINDS)
        return shared / processes + sum(taken.values()) - shared + (self.start if work.flops else 0)


@dataclass(frozen=True)
class Network:
    """A backbone on the images of a data set, as a whole or with fewer blocks."""

    architecture: Architecture | UNetArchitecture
    process: ProcessSettings
    depth: int

    @property
    def transformer(self) -> bool:
        return isinstance(self.architecture, Architecture)

    def forward(self, blocks: float, adapter_width: int | None = None) -> float:
        """FLOPs of one image through ``blocks`` blocks. A U-Net's are unlike each other: their mean is counted."""
        if isinstance(self.architecture, Architecture):
            joints: float = macs(self.architecture, 0)
            block: float = macs(self.architecture, 1, adapter_width) - joints
        else:
            joints = unet_macs(self.architecture, ())
            block = (unet_macs(self.architecture, range(self.depth)) - joints) / self.depth
        return 2 * (joints + blocks * block)

    def step(self, blocks: int, tuning: Finetuning | None = None) -> float:
        """FLOPs of one image in an optimizer step, by its method, with a teacher where there is one."""
        if isinstance(self.architecture, Architecture):
            return 2 * step_macs(self.architecture, blocks, tuning)
        return 3 * self.forward(blocks)

    def parameters(self, blocks: int) -> int:
        return parameters_of(self.architecture, range(blocks))

    def sampled(self, blocks: int, sampling: Sampling, adapter_width: int | None = None) -> float:
        """FLOPs of one image from noise to data: every evaluation twice where there is guidance."""
        passes = evaluations(self.process, sampling) * (2 if sampling.guidance > 1 else 1)
        return passes * self.forward(blocks, adapter_width)

    def scores(self, criterion: Criterion, scoring: Scoring, sampling: Sampling, blocks: int, remove: int) -> Work:
        """One ranking of ``blocks`` blocks; ``remove`` of them, where a criterion chooses a set of that size."""
        match cost_of(criterion, scoring):
            case "samples":
                variants = self.sampled(blocks, sampling) + blocks * self.sampled(blocks - 1, sampling)
                return Work(sampling=scoring.ld_pruner_samples * variants)
            case "training":
                search = scoring.learned
                step = self.step(blocks, Finetuning(steps=0, method="lora", lora=search.lora))
                return Work(steps=search.steps, training=search.steps * search.batch_size * step)
            case "removals":  # one full pass, then the removal of block i costs the blocks after it
                a_draw = self.forward(blocks + blocks * (blocks - 1) / 2)
            case "masks":
                a_draw = scoring.masks * self.forward(blocks - remove)
            case "gradients":
                a_draw = 3 * self.forward(blocks)
            case passes:
                a_draw = passes * self.forward(blocks)
        return Work(scoring=scoring.draws * a_draw)

    def proxied(self, blocks: int, proxies: Proxies) -> Work:
        """Both proxies of one sub-network."""
        return Work(proxies=self.ntk(blocks, proxies.ntk) + self.zico(blocks, proxies.zico))

    def ntk(self, blocks: int, settings: Ntk) -> float:
        """A forward pass; for each probe its backward, every sample's gradients, and their products with each other."""
        n, probes = settings.samples, settings.projections if settings.functional == "projection" else 1
        return n * (1 + 2 * probes) * self.forward(blocks) + probes * 2 * n**2 * self.parameters(blocks)

    def zico(self, blocks: int, settings: Zico) -> float:
        """Forward passes, and the gradients of every batch."""
        return settings.batches * settings.batch_size * 3 * self.forward(blocks)


def evaluations(process: ProcessSettings, sampling: Sampling) -> int:
    """How often the sampler asks the network, an image; guidance not counted."""
    if isinstance(process, Diffusion):
        return sampling.diffusion.steps
    return {"heun": 2 * sampling.flow.steps, "dopri5": DOPRI5_EVALUATIONS}.get(sampling.flow.name, sampling.flow.steps)
