"""What every criterion is given, what every criterion returns, and the draws that they share."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from entpruner.data.store import Images
from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.base import Frozen
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.process import Process
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator


@dataclass(frozen=True)
class ScoreContext:
    """A network (on ``device``), its process, the images that importance is measured on, and the settings."""

    model: BlockNetwork
    process: Process
    images: Images
    settings: Scoring
    sampling: Sampling
    """How the ``sampling`` form of LD-Pruner generates its latents."""
    seed: int
    artefact: str
    """Names the stream of random numbers, together with ``seed``."""
    device: torch.device
    remove: int | None = None
    """How many blocks are to go, for the criteria that choose a set of that size."""


class Scores(Frozen):
    """One criterion's verdict, an element a block. None stands where a number is not defined."""

    criterion: str
    blocks: tuple[int, ...]
    """The scored blocks, in the numbering of the unpruned network."""
    value: tuple[float, ...]
    """What blocks are ranked by: the lowest is pruned first."""
    signed: tuple[float, ...]
    """The same before the absolute value was taken; equal to ``value`` where the criterion takes none."""
    stderr: tuple[float | None, ...]
    """Standard error of ``value`` over the draws."""
    pooled: tuple[float, ...] | None = None
    """Signed change over all draws together."""
    per_timestep: tuple[tuple[float | None, ...], ...] | None = None
    """Signed change, block by timestep bin (bins of equal width of ``Process.time_fraction``)."""
    per_class: tuple[tuple[float | None, ...], ...] | None = None
    """Signed change, block by class; None for a class without draws."""
    unpruned: dict[str, tuple[float | None, ...]] | None = None
    """What the changes are relative to: the unpruned network's ``pooled``, ``timestep`` and ``class`` values."""
    floored: int = 0
    """How many fitted variances were (nearly) zero and were raised to the floor; see ``entropy.py``."""
    draws: int
    seed: int
    settings: Scoring

    @property
    def order(self) -> tuple[int, ...]:
        """The blocks in the order in which they are removed: ascending value, ties by block number."""
        return tuple(block for _, block in sorted(zip(self.value, self.blocks, strict=True)))

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls.model_validate(content)


@dataclass(frozen=True)
class Draws:
    """A batch of draws: B of the N numbered 0 … N-1."""

    index: Tensor  # (B,) int64, the draw's number
    x: Tensor  # (B, C, H, W) clean images
    noise: Tensor  # (B, C, H, W)
    t: Tensor  # (B,)
    y: Tensor  # (B,) class; labels are never dropped here
    x_t: Tensor  # (B, C, H, W)


def draws(context: ScoreContext) -> Iterator[Draws]:
    """The N = ``settings.draws`` draws (x, y, t, noise) of a context, in batches, on its device.

    Images are drawn without replacement (a set smaller than N is gone through several times), t is stratified. The
    draws follow from (seed, artefact) alone: every block, and every criterion, sees the same ones, and the batch size
    changes nothing.
    """
    n, images = context.settings.draws, context.images
    random = generator(context.seed, context.artefact, 0)
    drawn = generator(context.seed, context.artefact, "images")  # apart, lest the batch size count
    passes = math.ceil(n / len(images))
    image = torch.cat([torch.randperm(len(images), generator=random) for _ in range(passes)])
    t = context.process.draw_times(n, random, stratified=True)
    with Progress(0, n, batch_size=1, unit="draw") as progress:
        for index in torch.split(torch.arange(n), context.settings.batch_size):
            x, y = images.batch(image[index], drawn)
            noise = torch.randn(x.shape, generator=random)
            index, x, noise, times, y = (part.to(context.device) for part in (index, x, noise, t[index], y))
            yield Draws(index, x, noise, times, y, context.process.add_noise(x, noise, times))
            progress.update(len(index))


def timestep_bins(context: ScoreContext, t: Tensor) -> Tensor:
    """Which of ``settings.bins`` bins of equal width each time falls in: (B,) int64."""
    bins = context.settings.bins
    return (context.process.time_fraction(t) * bins).long().clamp(max=bins - 1)


def ranking(criterion: str, values: Tensor) -> tuple[float, ...]:
    """(L,) scores as numbers. Raises UserError if one is not finite."""
    require_finite(criterion, values)
    return tuple(values.tolist())


def require_finite(criterion: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise UserError(f"{criterion}: the network's outputs are not finite numbers; check the weights it was given")


def listed(values: Tensor) -> tuple[Any, ...]:
    """A tensor as nested tuples of floats, NaN as None: JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(plain(inner) for inner in value)
        return None if math.isnan(value) else value

    return plain(values.tolist())


def unsigned(
    criterion: str, context: ScoreContext, value: Tensor, stderr: Tensor | float = math.nan, draws: int = 0
) -> Scores:
    """The scores of a criterion that takes no absolute value: ``signed`` repeats ``value``, (L,).

    stderr: (L,), or one for all blocks; NaN is not known. Raises UserError if a value is not finite.
    """
    return Scores(
        criterion=criterion,
        blocks=context.model.kept_blocks,
        value=ranking(criterion, value),
        signed=ranking(criterion, value),
        stderr=listed(torch.as_tensor(stderr).expand(len(value))),
        draws=draws,
        seed=context.seed,
        settings=context.settings,
    )


def removal(criterion: str, context: ScoreContext, positions: Collection[int], draws: int = 0) -> Scores:
    """The scores of a criterion that chose the blocks at ``positions``: 0 for them, by number, 1 for the others."""
    value = torch.tensor([float(position not in positions) for position in range(len(context.model.blocks))])
    return unsigned(criterion, context, value, draws=draws)


def blocks_to_go(criterion: str, context: ScoreContext) -> int:
    """``context.remove``, for a criterion that cannot do without. Raises UserError unless it leaves a block or more."""
    remove, blocks = context.remove, len(context.model.blocks)
    if remove is None or not 0 < remove < blocks:
        raise UserError(f"{criterion} chooses a set: remove must be 1 to {blocks - 1} of {blocks} blocks, not {remove}")
    return remove
