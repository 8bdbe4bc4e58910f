"""Sub-networks of one start network, measured on equal terms: the loss, and the distance before and after recovery.

All sub-networks of a start see the same draws, training batches, noise, labels and sampling noise (common random
numbers), so the luck that they share drops out when they are compared. ``repeat`` numbers independent recoveries, with
other batches, training noise and sampling noise, which are again the same for all.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from entpruner.evaluation.extractors import FeatureNet
from entpruner.evaluation.fidelity import frechet_distance
from entpruner.evaluation.sampling import sample_images
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.training import Training
from entpruner.scores import ScoreContext
from entpruner.scores.context import draws
from entpruner.system.devices import without_tf32
from entpruner.system.randomness import seed_of
from entpruner.training.loop import train
from entpruner.training.state import TrainState

Blocks = tuple[int, ...]


@dataclass(frozen=True)
class Bench:
    """All that the sub-networks of one start network are measured with."""

    context: ScoreContext
    """The start network, its process, training images and draws; sampling, seed, device."""
    net: FeatureNet
    real: Tensor
    """Features of the real images, float64 (M, D)."""
    recovery: Training
    compute: Compute
    decode: Callable[[Tensor], Tensor] | None = None
    """Turns samples that are latents into images; None where samples are images."""


class Measured(Frozen):
    """One sub-network. Distances are Fréchet distances on the bench's feature net, of ``context.sampling.samples``
    images from all real training images. Recovered weights are the moving average, as everywhere."""

    dropped: Blocks
    """The blocks that it lacks, in the numbering of the unpruned network, ascending."""
    repeat: int
    loss: float
    """Mean training loss on the fixed draws, before recovery."""
    distance_before: float | None
    """Distance before recovery; None where it was not asked for."""
    distance: float
    """Distance after recovery."""
    seconds: float


def measured(bench: Bench, dropped: Sequence[int], *, repeat: int = 0, before: bool = True) -> Measured:
    """Drop blocks from the bench's start network, measure, recover, measure again.

    ``before`` asks for the distance before recovery, which costs as much sampling as the one after it.
    """
    began = time.perf_counter()
    network = drop_blocks(bench.context.model, dropped)
    return Measured(
        dropped=tuple(sorted(dropped)),
        repeat=repeat,
        loss=mean_loss(network, bench.context),
        distance_before=distance(network, bench, repeat) if before else None,
        distance=distance(recovered(network, bench.context, bench.recovery, bench.compute, repeat), bench, repeat),
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def mean_loss(network: BlockNetwork, context: ScoreContext) -> float:
    """Training loss over fixed draws, labels never dropped. Criteria see other draws, as these would be the answer."""
    network.eval()
    own = replace(context, artefact=f"{context.artefact}/loss")
    with without_tf32():
        losses = [context.process.losses(network, d.x, d.noise, d.t, d.y)["loss"].double() for d in draws(own)]
    return float(torch.cat(losses).mean())


def recovered(
    network: BlockNetwork, context: ScoreContext, recovery: Training, compute: Compute, repeat: int = 0
) -> BlockNetwork:
    """The averaged weights after ``recovery``; ``network`` itself is trained too."""
    state = TrainState.start(network)
    train(
        state,
        context.process,
        context.images,
        recovery,
        start=0,
        stop=recovery.steps,
        seed=context.seed,
        artefact=f"{context.artefact}/recovery{repeat}",
        compute=compute,
    )
    return state.ema


def distance(network: BlockNetwork, bench: Bench, repeat: int) -> float:
    context = bench.context
    seed = seed_of(context.seed, context.artefact, "sampling", repeat)
    images, _ = sample_images(
        network, context.process, context.sampling, seed=seed, device=context.device, decode=bench.decode
    )
    return frechet_distance(bench.net.features(images), bench.real)


def short_recovery(finetune: Training, steps: int) -> Training:
    """The study's fine-tuning shrunk to ``steps``: the same warm-up share, decay and batch, all weights trained."""
    settings = {name: getattr(finetune, name) for name in Training.model_fields}
    warmup = round(finetune.warmup_steps * steps / max(finetune.steps, 1))
    return Training(**settings | {"steps": steps, "warmup_steps": warmup, "log_every": max(steps, 1)})


# ------------------------------------------------------------------------------------------------- what to drop


def random_masks(blocks: Sequence[int], size: int, count: int, random: torch.Generator) -> list[Blocks]:
    """``count`` different sets of ``size`` blocks, each as likely as any other; all there are, if these are fewer."""
    count = min(count, math.comb(len(blocks), size))
    masks: dict[Blocks, None] = {}
    while len(masks) < count:
        chosen = torch.randperm(len(blocks), generator=random)[:size].tolist()
        masks[tuple(sorted(blocks[position] for position in chosen))] = None
    return list(masks)


def nested_masks(
    blocks: Sequence[int], sizes: Sequence[int], count: int, random: torch.Generator
) -> list[list[Blocks]]:
    """``count`` chains of sets, each set within the next: the first blocks of a random order, by ``sizes``."""
    chains = []
    for _ in range(count):
        order = [blocks[position] for position in torch.randperm(len(blocks), generator=random).tolist()]
        chains.append([tuple(sorted(order[:size])) for size in sorted(sizes)])
    return chains
