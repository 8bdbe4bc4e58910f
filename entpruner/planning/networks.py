"""What one pass of a network, one step of its training and one score of its blocks cost, as FLOPs."""

from dataclasses import dataclass, fields

from entpruner.models.arithmetic import macs, parameters_of, step_macs, unet_macs
from entpruner.params.arms import Criterion
from entpruner.params.backbones import Architecture, Diffusion, ProcessSettings, UNetArchitecture
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning

DOPRI5_EVALUATIONS = 100
"""Of the network, an image: an assumption, as the solver chooses its own steps."""


@dataclass(frozen=True)
class Work:
    """What a job computes and leaves behind. A machine does the three kinds of FLOPs at different speeds."""

    steps: int = 0
    """Optimizer steps."""
    training: float = 0.0
    """FLOPs of steps, and of all else that has a backward pass."""
    forward: float = 0.0
    """FLOPs of forward passes alone."""
    features: float = 0.0
    """FLOPs of feature nets: in float32, without tensor cores."""
    disk: float = 0.0
    """Bytes that stay."""

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Work)))

    def __mul__(self, times: int) -> "Work":
        return Work(*(getattr(self, field.name) * times for field in fields(Work)))

    @property
    def flops(self) -> float:
        return self.training + self.forward + self.features


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
        once = scoring.draws * self.forward(blocks)
        # One full pass, then block i's removal costs the blocks after it (``scores/prefix.py``).
        removals = scoring.draws * self.forward(blocks + blocks * (blocks - 1) / 2)
        match criterion:
            case "ced" | "sensitivity":
                return Work(forward=removals)
            case "ld_pruner" if scoring.ld_pruner == "one_step":
                return Work(forward=removals)
            case "ld_pruner":
                variants = self.sampled(blocks, sampling) + blocks * self.sampled(blocks - 1, sampling)
                return Work(forward=scoring.ld_pruner_samples * variants)
            case "block_influence":
                return Work(forward=once / 4 if scoring.block_influence == "clean" else once)
            case "similarity_mse":
                return Work(forward=once)
            case "taylor":
                return Work(training=3 * once)
            case "diff_pruning":
                return Work(training=3 * once, forward=once)
            case "learned":
                search = scoring.learned
                step = self.step(blocks, Finetuning(steps=0, method="lora", lora=search.lora))
                return Work(steps=search.steps, training=search.steps * search.batch_size * step)
            case "random_median":
                return Work(forward=scoring.masks * scoring.draws * self.forward(blocks - remove))
            case "magnitude" | "random" | "every_other" | "first" | "last":
                return Work()

    def proxied(self, blocks: int, proxies: Proxies) -> Work:
        """Both proxies of one sub-network: a forward pass, its backward, and the weights' gradients."""
        probes = proxies.ntk.projections if proxies.ntk.functional == "projection" else 1
        ntk = proxies.ntk.samples * (1 + 2 * probes)
        zico = proxies.zico.batches * proxies.zico.batch_size * 3
        return Work(training=(ntk + zico) * self.forward(blocks))


def evaluations(process: ProcessSettings, sampling: Sampling) -> int:
    """How often the sampler asks the network, an image; guidance not counted."""
    if isinstance(process, Diffusion):
        return sampling.diffusion.steps
    return {"heun": 2 * sampling.flow.steps, "dopri5": DOPRI5_EVALUATIONS}.get(sampling.flow.name, sampling.flow.steps)
