"""The FLOPs of a pass of a network, of a step of its training and of a ranking of its blocks.

FLOPs are those of matrix products, twice the multiply-accumulates of ``models/arithmetic.py``. Reading images,
entropies, nearest neighbours and distances between features are not counted.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

from entpruner.models.arithmetic import (
    Layer,
    block_layers,
    layers_around,
    macs,
    macs_with,
    parameters_of,
    step_macs,
)
from entpruner.params.arms import Criterion
from entpruner.params.backbones import Architecture, Diffusion, ProcessSettings, Shape
from entpruner.params.criteria import cost_of
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.stock import StockArchitecture
from entpruner.params.training import Finetuning, Training

WORD = 4
"""Bytes of a float32."""
KEPT = 2**30
"""Bytes of the insides of all blocks that a measurement of the proxies keeps (``proxies/per_sample.py``)."""
DOPRI5_EVALUATIONS = 100
"""The assumed number of network evaluations of this solver, which chooses its own steps."""


@dataclass(frozen=True)
class Work:
    """What a job computes and leaves on the disk. A machine has another speed for each of the three kinds of FLOPs."""

    steps: float = 0
    """Optimizer steps."""
    training: float = 0.0
    """FLOPs of trainings, which a GPU computes in bfloat16."""
    sampling: float = 0.0
    """FLOPs of samplings and autoencoders, which a GPU computes in TF32."""
    measuring: float = 0.0
    """FLOPs of scores, proxies and feature nets, which every device computes in float32."""
    disk: float = 0.0
    """Bytes of the files that the job makes."""

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Work)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(getattr(self, field.name) * times for field in fields(Work)))

    @property
    def flops(self) -> float:
        return self.training + self.sampling + self.measuring


class Speed(NamedTuple):
    """The speed of a machine: FLOP/s for each kind of ``Work``."""

    training: float
    sampling: float
    measuring: float
    machine: str = ""
    """A description of the machine and of the source of its speed."""
    memory: float | None = None
    """Bytes of the memory of the GPU, or None if no GPU is named."""

    def seconds(self, work: Work, processes: int = 1) -> float:
        """The duration of a job. Its processes share training and sampling, and the first one measures alone."""
        shared = work.training / self.training + work.sampling / self.sampling
        return shared / processes + work.measuring / self.measuring


@dataclass(frozen=True)
class Network:
    """A backbone for the images of a data set. Its methods count work with all its blocks or with fewer."""

    architecture: Shape
    process: ProcessSettings
    depth: int

    def forward(self, blocks: float, adapter_width: int | None = None) -> float:
        """FLOPs of one image in ``blocks`` blocks and the layers around them. A block of a U-Net counts as the mean."""
        if isinstance(self.architecture, Architecture):
            around: float = macs(self.architecture, 0)
            block: float = macs(self.architecture, 1, adapter_width) - around
        else:
            around = macs_with(self.architecture, ())
            block = (macs_with(self.architecture, range(self.depth)) - around) / self.depth
        return 2 * (around + blocks * block)

    def step(self, blocks: int, tuning: Finetuning | None = None) -> float:
        """FLOPs of one image in an optimizer step, with those of a teacher if there is one."""
        if isinstance(self.architecture, Architecture):
            return 2 * step_macs(self.architecture, blocks, tuning)
        return 3 * self.forward(blocks)

    def parameters(self, blocks: int) -> int:
        return parameters_of(self.architecture, range(blocks))

    def trained(self, blocks: int, training: Training, steps: int) -> Work:
        """A training with so many blocks, and its folder: weights, their average and the two moments of AdamW."""
        tuning = training if isinstance(training, Finetuning) else None
        flops = steps * training.batch_size * self.step(blocks, tuning)
        copies = 4 if tuning is None or tuning.method == "full" else 2
        return Work(steps=steps, training=flops, disk=copies * WORD * self.parameters(blocks))

    def sampled(self, blocks: int, sampling: Sampling, adapter_width: int | None = None) -> float:
        """FLOPs to sample one image. Guidance evaluates the network twice for each image."""
        passes = evaluations(self.process, sampling) * (2 if sampling.guidance > 1 else 1)
        return passes * self.forward(blocks, adapter_width)

    def scores(self, criterion: Criterion, scoring: Scoring, sampling: Sampling, blocks: int, remove: int) -> Work:
        """One ranking of ``blocks`` blocks. ``remove`` is the size of the set that some criteria choose."""
        match cost_of(criterion, scoring):
            case "samples":
                variants = self.sampled(blocks, sampling) + blocks * self.sampled(blocks - 1, sampling)
                return Work(sampling=scoring.ld_pruner_samples * variants)
            case "training":
                search = scoring.learned
                step = self.step(blocks, Finetuning(steps=0, method="lora", lora=search.lora))
                return Work(steps=search.steps, training=search.steps * search.batch_size * step)
            case "removals":  # one full pass, and for every block a pass of the blocks behind it
                a_draw = self.forward(blocks + blocks * (blocks - 1) / 2)
            case "masks":
                a_draw = scoring.masks * self.forward(blocks - remove)
            case "gradients":
                a_draw = 3 * self.forward(blocks)
            case passes:
                a_draw = passes * self.forward(blocks)
        return Work(measuring=scoring.draws * a_draw)

    def proxied(self, blocks: int, proxies: Proxies) -> Work:
        """The measurement of both proxies of one sub-network, without what it shares with others of a vote.

        Each sample takes a forward pass, the gradients of the activations, and in a large network the insides of the
        blocks again. NTK adds the products of the gradients of all samples for each probe, and ZiCo the gradients of
        its batches.
        """
        shape, n, probes = self.architecture, proxies.ntk.samples, proxies.ntk.probes
        assert not isinstance(shape, StockArchitecture), "the proxies do not know its layers"
        inside = [layer for block in range(blocks) for layer in block_layers(shape, block)]
        differentiated, drawn = probes * n, proxies.zico.batches * proxies.zico.batch_size
        held = WORD * (differentiated + drawn) * sum((a.inputs + a.outputs) * a.positions for a in inside)
        passes = 2 if held <= KEPT else 3
        grams = 2 * probes * sum(gram_macs(layer, n) for layer in [*layers_around(shape), *inside])
        return Work(measuring=(passes * (differentiated + drawn) + drawn) * self.forward(blocks) + grams)


def gram_macs(layer: Layer, samples: int) -> int:
    """Multiply-accumulates of all products of the per-sample gradients of a layer (``proxies/ntk.py``)."""
    rows = samples * layer.positions
    return min(rows**2 * (layer.inputs + layer.outputs), (rows + samples**2) * layer.inputs * layer.outputs)


def evaluations(process: ProcessSettings, sampling: Sampling) -> int:
    """The number of network evaluations for an image, without those of guidance."""
    if isinstance(process, Diffusion):
        return sampling.diffusion.steps
    return {"heun": 2 * sampling.flow.steps, "dopri5": DOPRI5_EVALUATIONS}.get(sampling.flow.name, sampling.flow.steps)
