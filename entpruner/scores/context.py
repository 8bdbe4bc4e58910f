"""What every criterion is given, what every criterion returns, and the draws that they share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from entpruner.data.store import Images
from entpruner.models.network import BlockNetwork, Removable
from entpruner.params.base import Frozen
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.process import Process
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator

GROUPS = 32  # that the jackknife leaves out in turn, two of which are compared with each other


class NotFiniteError(ArithmeticError):
    """The network's outputs are not finite numbers, so that no block can be ranked by them."""


class Drawn(Protocol):
    """A batch of B draws, as criteria see them."""

    @property
    def group(self) -> Tensor:
        """(B,) int64. The jackknife leaves out together what is the same modulo the ``groups`` of the context."""

    @property
    def t(self) -> Tensor:
        """(B,) times."""

    @property
    def y(self) -> Tensor:
        """(B,) int64 classes."""

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What the network is called with."""


@dataclass(frozen=True, kw_only=True)
class Context(ABC):
    """A network (on ``device``), the settings, and the draws that importance is measured on."""

    model: Removable
    settings: Scoring
    seed: int
    artefact: str
    """The name that chooses the stream of random numbers, together with ``seed``."""
    device: torch.device
    remove: int | None = None
    """The number of blocks to remove. Only the criteria that choose a set of a given size read it."""

    @property
    def set_size(self) -> int:
        """``remove``, for a criterion that declares ``SIZED``: ``score`` has made sure that it is possible."""
        assert self.remove is not None
        return self.remove

    @property
    def groups(self) -> int:
        """How many groups of draws the jackknife leaves out in turn."""
        return groups_of(self.settings.draws)

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many classes the draws may be of."""

    @abstractmethod
    def draws(self) -> Iterator[Any]:
        """The N = ``settings.draws`` draws, as ``Drawn``, in batches on the device; the same at every call."""

    @abstractmethod
    def prediction(self, output: Tensor) -> Tensor:
        """The noise or velocity in the network's output, without variances: (B, ...)."""

    @abstractmethod
    def losses(self, batch: Any, output: Tensor) -> Tensor:
        """The loss of each draw, (B,), for the network's output."""

    def removal_predictions(self) -> Iterator[tuple[int, Any, Tensor]]:
        """Yield (variant, batch, predictions (B, ...)), for every batch of the draws and every variant of the network.

        Variant 0 is the whole network, and variant i+1 is the network without block i.
        """
        for batch in self.draws():
            for variant, (_, output) in enumerate(self.model.removals(*batch.inputs)):
                yield variant, batch, self.prediction(output)

    def sloped(self, batch: Any, output: Tensor) -> Tensor:
        """What first-order criteria differentiate: (B,). It is the loss, where the loss has a slope."""
        return self.losses(batch, output)

    @abstractmethod
    def bins(self, t: Tensor) -> Tensor:
        """The bin that each time falls in, of ``settings.bins`` bins of equal width: (B,) -> (B,) int64."""


@dataclass(frozen=True, kw_only=True)
class ScoreContext(Context):
    """A DiT, a SiT or a U-Net with its process, and the images that importance is measured on."""

    model: BlockNetwork
    process: Process
    images: Images
    sampling: Sampling
    """How a criterion samples images or latents, if it does so."""

    @property
    def num_classes(self) -> int:
        return self.images.num_classes

    def draws(self) -> Iterator["Draws"]:
        """The draws (x, y, t, noise).

        Images are drawn without replacement, and a set smaller than N is gone through several times. The times t are
        stratified. The draws follow from the seed and the artefact alone, so every block and every criterion sees the
        same ones, and the batch size changes nothing.
        """
        n, images = self.settings.draws, self.images
        random = generator(self.seed, self.artefact, 0)
        drawn = generator(self.seed, self.artefact, "images")  # apart: batches then change nothing
        passes = math.ceil(n / len(images))
        image = torch.cat([torch.randperm(len(images), generator=random) for _ in range(passes)])
        t = self.process.draw_times(n, random, stratified=True)
        group = groups_of_neighbours(t, self.groups)
        with Progress(0, n, batch_size=1, unit="draw") as progress:
            for index in torch.split(torch.arange(n), self.settings.batch_size):
                x, y = images.batch(image[index], drawn)
                noise = torch.randn(x.shape, generator=random)
                of, x, noise, times, y = (part.to(self.device) for part in (group[index], x, noise, t[index], y))
                yield Draws(of, x, noise, times, y, self.process.add_noise(x, noise, times))
                progress.update(len(index))

    def prediction(self, output: Tensor) -> Tensor:
        return self.process.prediction(output)

    def losses(self, batch: "Draws", output: Tensor) -> Tensor:
        """The training loss of each draw, (B,), for a network's output (B, 2C, H, W) at ``batch.x_t``."""
        # The process asks for a network. This one ignores its arguments, because its output is known already.
        return self.process.losses(lambda *_: output, batch.x, batch.noise, batch.t, batch.y)["loss"]

    def bins(self, t: Tensor) -> Tensor:
        bins = self.settings.bins
        return (self.process.time_fraction(t) * bins).long().clamp(max=bins - 1)


@dataclass(frozen=True)
class Importance:
    """What a criterion finds for the L blocks of a network. ``score`` makes the ``Scores`` of it."""

    value: Tensor
    """(L,) Blocks are ranked by it: the lowest is pruned first. An error is raised if a number is not finite."""
    signed: Tensor | None = None
    """(L,) The value before its absolute value was taken. None for a criterion that takes no absolute value."""
    stderr: Tensor | float = math.nan
    """(L,), or one number for all blocks: the standard error of ``value`` over the draws. NaN where it is not known."""
    draws: int = 0
    """The number of draws that the criterion looked at."""
    pooled: Tensor | None = None  # (L,), and so on: the rest as in ``Scores``, with NaN for None
    per_timestep: Tensor | None = None
    per_class: Tensor | None = None
    unpruned: dict[str, Tensor] | None = None
    floored: int = 0


class Scores(Frozen):
    """How important one criterion finds the blocks of a network. Tuples have one element for each block.

    None stands where a number is not defined.
    """

    criterion: str
    blocks: tuple[int, ...]
    """The scored blocks, in the numbering of the unpruned network."""
    value: tuple[float, ...]
    """What blocks are ranked by: the lowest is pruned first."""
    signed: tuple[float, ...]
    """The value before its absolute value was taken. It equals ``value`` where no absolute value is taken."""
    stderr: tuple[float | None, ...]
    """The standard error of ``value`` over the draws.

    For CED and LD-Pruner it counts what the stratified times save. It takes images as drawn from a set without end:
    where a set has fewer images than there are draws, other draws change ``value`` by less.
    """
    pooled: tuple[float, ...] | None = None
    """The signed change over all draws together."""
    per_timestep: tuple[tuple[float | None, ...], ...] | None = None
    """The signed change by block and timestep bin. The bins have equal widths on ``Process.time_fraction``."""
    per_class: tuple[tuple[float | None, ...], ...] | None = None
    """The signed change by block and class. It is None for a class without draws."""
    unpruned: dict[str, tuple[float | None, ...]] | None = None
    """The unpruned network's values that the changes are relative to: ``pooled``, by ``timestep`` and by ``class``."""
    floored: int = 0
    """How many fitted variances were zero or nearly so, and were raised to the floor that ``entropy.py`` states."""
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
    """A batch of B draws."""

    group: Tensor  # (B,) int64, the jackknife's group
    x: Tensor  # (B, C, H, W) clean images
    noise: Tensor  # (B, C, H, W)
    t: Tensor  # (B,)
    y: Tensor  # (B,) class; labels are never dropped here
    x_t: Tensor  # (B, C, H, W)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the network is called with."""
        return self.x_t, self.t, self.y


def groups_of(n: int) -> int:
    """How many groups the jackknife makes of n draws: an even number, or one group of a single draw."""
    return max(1, min(GROUPS, n - n % 2))


def groups_of_neighbours(value: Tensor, groups: int) -> Tensor:
    """The jackknife's group of each draw: (N,) -> (N,) int64. Neighbours in ``value`` are in the groups 2j and 2j + 1.

    In the order of ``value``, draws are dealt out to the groups, and the two of a pair change places after each round.
    Without that, the first of them would always have the smaller values.
    """
    rank = value.argsort(stable=True).argsort()
    place = rank % groups
    return place if groups == 1 else place ^ (rank // groups % 2)


def mean_by_stratum(values: Tensor, stratum: Tensor, size: int) -> Tensor:
    """Means of (V, N) values over the members of each stratum, (N,) -> (V, size). NaN for a stratum without members."""
    member = F.one_hot(stratum, size).to(values)  # (N, size)
    return values @ member / member.sum(0)


def removal(context: Context, positions: Collection[int], draws: int = 0) -> Importance:
    """What a criterion returns that chose the blocks at ``positions``: 0 for them, 1 for the others."""
    value = torch.tensor([float(position not in positions) for position in range(len(context.model.blocks))])
    return Importance(value, draws=draws)


def require_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise NotFiniteError


def listed(values: Any) -> Any:
    """Tensors and lists of numbers as nested tuples. NaN becomes None, as JSON has no NaN. None stays None."""
    if isinstance(values, dict):
        return {name: listed(value) for name, value in values.items()}
    if isinstance(values, Tensor):
        values = values.tolist()
    if isinstance(values, list):
        return tuple(map(listed, values))
    return None if values is None or math.isnan(values) else values
