"""Sub-networks of one start network: their loss, and their distance to real images before and after recovery.

All sub-networks of a start network see the same draws, training batches, noise, labels and sampling noise (common
random numbers), so chance that they share cancels in comparisons. ``repeat`` is the number of an independent recovery.
Another repeat has other batches, training noise and sampling noise, which are again the same for all sub-networks.
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
from entpruner.system.devices import without_tf32
from entpruner.system.randomness import seed_of
from entpruner.training.loop import train
from entpruner.training.state import TrainState

Blocks = tuple[int, ...]
"""The numbers of some blocks of the unpruned network, ascending."""


@dataclass(frozen=True)
class Bench:
    """What the sub-networks of one start network are measured with."""

    context: ScoreContext
    """The start network with its process, training images, seed, device, and settings of draws and sampling."""
    net: FeatureNet
    real: Tensor
    """(M, D), float64: the features of the M real training images."""
    recovery: Training
    compute: Compute
    decode: Callable[[Tensor], Tensor] | None = None
    """Decodes latents into images. None if the network samples images."""


class Measured(Frozen):
    """What was measured of one sub-network.

    A distance is the Fréchet distance, on the features of the bench's net, between ``context.sampling.samples`` sampled
    images and all real training images. A recovered network samples with the moving average of its weights.
    """

    dropped: Blocks
    """The blocks that the sub-network lacks."""
    repeat: int
    loss: float
    """The mean training loss on the fixed draws, before recovery."""
    distance_before: float | None
    """The distance before recovery. None if it was not measured."""
    distance: float
    """The distance after recovery."""
    seconds: float


def measured(bench: Bench, dropped: Sequence[int], *, repeat: int = 0, before: bool = True) -> Measured:
    """Drop blocks from the bench's start network, measure it, recover it, and measure it again.

    Without ``before`` the distance before recovery is not measured, which halves the sampling.
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
    """The mean training loss over fixed draws, with all labels. Criteria see other draws than these: a criterion that
    measures the loss would otherwise be compared with itself."""
    network.eval()
    own = replace(context, artefact=f"{context.artefact}/loss")
    with without_tf32():
        losses = [context.process.losses(network, d.x, d.noise, d.t, d.y)["loss"].double() for d in own.draws()]
    return float(torch.cat(losses).mean())


def recovered(
    network: BlockNetwork, context: ScoreContext, recovery: Training, compute: Compute, repeat: int = 0
) -> BlockNetwork:
    """The network with the moving average of its weights after the training ``recovery``. ``network`` itself ends with
    the trained weights."""
    state = TrainState.start(network, recovery.optimizer)
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
    """The Fréchet distance of the network's samples to the real images."""
    context = bench.context
    seed = seed_of(context.seed, context.artefact, "sampling", repeat)
    images, _ = sample_images(
        network, context.process, context.sampling, seed=seed, device=context.device, decode=bench.decode
    )
    return frechet_distance(bench.net.features(images), bench.real)


def short_recovery(finetune: Training, steps: int) -> Training:
    """The study's fine-tuning, shrunk to ``steps``. It trains all weights, with the same decay and batch size. The
    warm-up, the restarts and the half-life of the average are the same shares of the steps."""
    settings = {name: getattr(finetune, name) for name in Training.model_fields}
    shrunk = steps / max(finetune.steps, 1)
    settings |= {"steps": steps, "warmup_steps": round(finetune.warmup_steps * shrunk), "log_every": max(steps, 1)}
    for name in ("ema_half_life", "restart_every"):
        if settings[name] is not None:
            settings[name] = max(1, round(settings[name] * shrunk))
    return Training(**settings)


# ------------------------------------------------------------------------------------------------- what to drop


def random_masks(blocks: Sequence[int], size: int, count: int, random: torch.Generator) -> list[Blocks]:
    """``count`` different sets of ``size`` blocks, each with the same probability. If there are fewer sets than this,
    all of them."""
    count = min(count, math.comb(len(blocks), size))
    masks: dict[Blocks, None] = {}
    while len(masks) < count:
        chosen = torch.randperm(len(blocks), generator=random)[:size].tolist()
        masks[tuple(sorted(blocks[position] for position in chosen))] = None
    return list(masks)


def nested_masks(
    blocks: Sequence[int], sizes: Sequence[int], count: int, random: torch.Generator
) -> list[list[Blocks]]:
    """``count`` chains of sets of these sizes, from the smallest to the largest. A chain has a random order of the
    blocks, and its sets are the first blocks of this order, so each set contains the one before it."""
    chains = []
    for _ in range(count):
        order = [blocks[position] for position in torch.randperm(len(blocks), generator=random).tolist()]
        chains.append([tuple(sorted(order[:size])) for size in sorted(sizes)])
    return chains
