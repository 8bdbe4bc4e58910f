"""The effect of the criterion at each schedule, and of the schedule at each criterion, where arms cross both.

An effect is a ratio of distances: that of one criterion or schedule over that of another, with everything else the
same. It is paired by seed, as arms of a seed begin with the same network and sample from the same noise. The
criterion and the schedule that the arms name first are those that the others are held against.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from scipy import stats

from entpruner.audit.statistics import POWER, TAILS, Estimate, holm, ratio_over_seeds
from entpruner.study.arms import ArmIdentity


class Cell(NamedTuple):
    """What the arms of a cell share."""

    criterion: str
    schedule: str


Network = tuple[str, str, float | None]
"""A backbone, its data, and the share of blocks that is removed."""
Cells = Mapping[Cell, Mapping[int, float]]
"""The arms of a network by cell and seed -> the log distance; of several draws of random sets, its mean."""


@dataclass(frozen=True)
class Effect:
    """A criterion against another one at a schedule, or a schedule against another one at a criterion."""

    network: Network
    of: Literal["criterion", "schedule"]
    one: str
    against: str
    at: str
    """The schedule at which criteria are compared, or the criterion at which schedules are."""
    logs: tuple[float, ...]
    """The log of the ratio with each seed that both have."""

    @property
    def ratio(self) -> Estimate | None:
        """The geometric mean over seeds, with Student's interval on the log."""
        return ratio_over_seeds(self.logs)

    @property
    def chance(self) -> float | None:
        """The two-sided p-value of Student's test that the ratio is 1. None if all seeds have the same ratio."""
        return None if self.error == 0 else float(2 * stats.t.sf(abs(fmean(self.logs)) / self.error, self.freedom))

    @property
    def detectable(self) -> float:
        """The smallest ratio above 1 that would be told apart from 1 in four of five such comparisons, uncorrected."""
        quantiles = stats.t.ppf(TAILS[1], self.freedom) + stats.t.ppf(POWER, self.freedom)
        return math.exp(quantiles * self.error)

    @property
    def error(self) -> float:
        """The standard error of the mean log."""
        return stdev(self.logs) / math.sqrt(len(self.logs))

    @property
    def freedom(self) -> int:
        return len(self.logs) - 1


def cells(arms: Sequence[ArmIdentity], distances: Sequence[float]) -> dict[Network, dict[Cell, dict[int, float]]]:
    """The log distances of the arms by network, cell and seed. Arms that share all three are averaged."""
    found: dict[Network, dict[Cell, dict[int, list[float]]]] = {}
    for arm, distance in zip(arms, distances, strict=True):
        cell = Cell(arm.criterion or "", arm.schedule)
        of_network = found.setdefault((arm.backbone, arm.data, arm.ratio), {})
        of_network.setdefault(cell, {}).setdefault(arm.seed, []).append(math.log(distance))
    return {
        network: {cell: {seed: fmean(logs) for seed, logs in by_seed.items()} for cell, by_seed in of_network.items()}
        for network, of_network in found.items()
    }


def effects(found: Mapping[Network, Cells]) -> list[Effect]:
    """All effects of which both sides have two seeds or more: those of the criterion first, then of the schedule."""
    return [
        effect
        for compared in (of_criteria, of_schedules)
        for network, of_network in found.items()
        for effect in compared(network, of_network)
        if len(effect.logs) > 1
    ]


def of_criteria(network: Network, of_network: Cells) -> Iterator[Effect]:
    (first, *others), schedules = levels(of_network)
    for at, one in product(schedules, others):
        logs = paired(of_network, Cell(one, at), Cell(first, at))
        yield Effect(network, "criterion", one, first, at, logs)


def of_schedules(network: Network, of_network: Cells) -> Iterator[Effect]:
    criteria, (first, *others) = levels(of_network)
    for at, one in product(criteria, others):
        logs = paired(of_network, Cell(at, one), Cell(at, first))
        yield Effect(network, "schedule", one, first, at, logs)


def levels(of_network: Cells) -> tuple[list[str], list[str]]:
    """The criteria and the schedules, in the order in which the arms name them."""
    return list(dict.fromkeys(c.criterion for c in of_network)), list(dict.fromkeys(c.schedule for c in of_network))


def paired(of_network: Cells, one: Cell, against: Cell) -> tuple[float, ...]:
    """The log ratios of the seeds that both cells have."""
    first, second = (of_network.get(cell, {}) for cell in (one, against))
    return tuple(first[seed] - second[seed] for seed in first if seed in second)


def corrected(found: Sequence[Effect]) -> list[float | None]:
    """The p-values of all effects, corrected by Holm's method."""
    by_place = holm({str(place): effect.chance for place, effect in enumerate(found)})
    return [by_place[str(place)] for place in range(len(found))]
