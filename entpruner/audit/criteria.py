"""Does a criterion predict what matters? Its values of blocks, and of sets of them, against what was measured.

The value of a set is the sum of its blocks' values, which is what greedy pruning takes for granted. A criterion that
keeps its promise has a positive rank correlation with each target: what it values more is missed more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from entpruner.audit.statistics import Bootstrapped, Floats, Resamples, Statistic, bootstrap, kendall, spearman
from entpruner.audit.subnetworks import Blocks, Measured
from entpruner.params.arms import SIZED, Criterion
from entpruner.params.audit import AuditedCriterion
from entpruner.scores import Scores

SETS_ONLY: tuple[Criterion, ...] = (*SIZED, "first", "last")
"""Criteria whose values only say which set they take: summed over other sets they mean nothing."""

Values = Mapping[int, float]
"""Block -> what it is ranked by."""

TARGETS: dict[str, Callable[[Measured], float]] = {
    "loss on removal": lambda measured: measured.loss,
    "distance before recovery": lambda measured: required(measured.distance_before),
    "distance after recovery": lambda measured: measured.distance,
}
STATISTICS: dict[str, Statistic] = {"ρ": spearman, "τ": kendall}


def required(value: float | None) -> float:
    assert value is not None, "measured with the distance before recovery"
    return value


def block_values(scores: Scores, audited: AuditedCriterion) -> Values:
    values = scores.signed if audited.rank_by == "signed" else scores.value
    return dict(zip(scores.blocks, values, strict=True))


def chosen(values: Values, size: int) -> Blocks:
    """The ``size`` blocks that go first: the lowest values, ties by block number."""
    order = sorted(values, key=lambda block: (values[block], block))
    return tuple(sorted(order[:size]))


def additive(values: Values, masks: Sequence[Blocks]) -> Floats:
    """The value of each set: the sum over its blocks."""
    return np.array([sum(values[block] for block in mask) for mask in masks])


@dataclass(frozen=True)
class Agreement:
    """One criterion against one target."""

    criterion: str
    target: str
    statistic: str
    """ρ (Spearman) or τ (Kendall), the mean over seeds of each seed's own."""
    found: Bootstrapped


def agreements(
    values: Mapping[str, Sequence[Values]], measured: Sequence[Sequence[Measured]], *keys: int | str
) -> list[Agreement]:
    """Every criterion (values: one a seed) against every target of the sub-networks (a list a seed).

    All share their resamples, which follow from ``keys``: differences between criteria are paired.
    """
    resamples = Resamples.draw([len(records) for records in measured], *keys)
    return [
        Agreement(criterion, target, name, bootstrap(pairs(by_seed, measured, of), statistic, resamples))
        for criterion, by_seed in values.items()
        for target, of in TARGETS.items()
        for name, statistic in STATISTICS.items()
    ]


def pairs(
    values: Sequence[Values], measured: Sequence[Sequence[Measured]], target: Callable[[Measured], float]
) -> list[tuple[Floats, ...]]:
    """For each seed the value of every sub-network's dropped blocks, and its target."""
    return [
        (additive(own, [record.dropped for record in records]), np.array([target(record) for record in records]))
        for own, records in zip(values, measured, strict=True)
    ]


def rank_among(distance: float, masks: Sequence[Measured]) -> int:
    """How many random masks ended at least as near; an equal one (the same set, say) counts against the criterion."""
    return sum(mask.distance <= distance for mask in masks)
