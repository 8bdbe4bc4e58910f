"""Does a criterion predict what matters? The values of blocks, and of sets of them, against what was measured.

The value of a set is the sum of its blocks' values, which is what greedy pruning takes for granted. A criterion that
keeps its promise has a positive rank correlation with each target: removing what it values more does more harm.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from entpruner.audit.statistics import Bootstrapped, Floats, Resamples, Statistic, bootstrap, kendall, spearman
from entpruner.audit.subnetworks import Blocks, Measured
from entpruner.params.arms import SIZED, Criterion
from entpruner.params.audit import AuditedCriterion
from entpruner.scores import Scores

SETS_ONLY: tuple[Criterion, ...] = (*SIZED, "first", "last")
"""Criteria whose values only say which set they take: summed over other sets they mean nothing."""

Values = Mapping[int, float]
"""Block -> the value that it is ranked by."""
Agreements = Mapping[tuple[str, str, str], Bootstrapped]
"""Criterion, target, statistic (ρ or τ) -> the mean over seeds of each seed's own correlation."""

TARGETS = {
    "loss on removal": "loss",
    "distance before recovery": "distance_before",
    "distance after recovery": "distance",
}
"""What a criterion should predict -> the field of ``Measured``."""
STATISTICS: dict[str, Statistic] = {"ρ": spearman, "τ": kendall}


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


def agreements(
    values: Mapping[str, Sequence[Values]], measured: Sequence[Sequence[Measured]], *keys: int | str
) -> Agreements:
    """Every criterion (its values, one mapping for each seed) against every target of each seed's sub-networks.

    All share their resamples, which follow from ``keys``, so differences between criteria are paired.
    """
    resamples = Resamples.draw([len(records) for records in measured], *keys)
    targets = {
        name: [np.array([getattr(record, field) for record in records]) for records in measured]
        for name, field in TARGETS.items()
    }
    masks = [[record.dropped for record in records] for records in measured]
    sums = {name: list(map(additive, by_seed, masks)) for name, by_seed in values.items()}
    return {
        (criterion, target, name): bootstrap(
            list(zip(sums[criterion], targets[target], strict=True)), statistic, resamples
        )
        for criterion in values
        for target in TARGETS
        for name, statistic in STATISTICS.items()
    }


def rank_among(distance: float, masks: Sequence[Measured]) -> int:
    """How many random masks ended at least as near. A mask at the same distance counts against the criterion."""
    return sum(mask.distance <= distance for mask in masks)
