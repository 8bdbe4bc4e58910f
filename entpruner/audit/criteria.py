"""Rank correlations of a criterion's values with what was measured, over single blocks or over sets of blocks.

The value of a set is the sum of the values of its blocks, as greedy pruning assumes. A criterion promises a positive
correlation with each target: the removal of what it values more does more harm.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from entpruner.audit.statistics import Bootstrapped, Floats, Resamples, Statistic, bootstrap, kendall, spearman
from entpruner.audit.subnetworks import Blocks, Measured
from entpruner.params.arms import SIZED, Criterion
from entpruner.params.audit import AuditedCriterion
from entpruner.scores import Scores

SETS_ONLY: tuple[Criterion, ...] = (*SIZED, "first", "last")
"""Criteria whose values only say which set they remove. The sum of such values over another set means nothing."""

Values = Mapping[int, float]
"""Block -> the value that it is ranked by."""
Agreements = Mapping[tuple[str, str, str], Bootstrapped]
"""(criterion, target, statistic) -> the mean over seeds of the correlation within each seed."""

TARGETS = {
    "loss on removal": "loss",
    "distance before recovery": "distance_before",
    "distance after recovery": "distance",
}
"""The name of a target that a criterion should predict -> its field of ``Measured``."""
STATISTICS: dict[str, Statistic] = {"ρ": spearman, "τ": kendall}


def block_values(entry: Mapping[str, Any]) -> Values:
    """The values by which a criterion ranks the blocks, from its entry in the document of ``audit_scores``."""
    scores, audited = Scores.from_json(entry["scores"]), AuditedCriterion(**entry["audited"])
    values = scores.signed if audited.rank_by == "signed" else scores.value
    return dict(zip(scores.blocks, values, strict=True))


def chosen(values: Values, size: int) -> Blocks:
    """The ``size`` blocks with the lowest values, which a criterion removes. Ties go by block number."""
    order = sorted(values, key=lambda block: (values[block], block))
    return tuple(sorted(order[:size]))


def additive(values: Values, masks: Sequence[Blocks]) -> Floats:
    """The value of each of n sets, as the sum over its blocks: (n,)."""
    return np.array([sum(values[block] for block in mask) for mask in masks])


def agreements(
    values: Mapping[str, Sequence[Values]], measured: Sequence[Sequence[Measured]], *keys: int | str
) -> Agreements:
    """Correlate every criterion with every target, within each seed, and average over the seeds.

    ``values`` holds one mapping for each seed and criterion; ``measured`` holds the sub-networks of each seed. All
    correlations share their resamples, whose random numbers ``keys`` name, so differences of criteria are paired.
    """
    resamples = Resamples.draw([len(records) for records in measured], *keys)
    masks = [[record.dropped for record in records] for records in measured]
    found = {}
    for target, field in TARGETS.items():
        truth = [np.array([getattr(record, field) for record in records]) for records in measured]
        for criterion, by_seed in values.items():
            groups = list(zip(map(additive, by_seed, masks), truth, strict=True))
            for name, statistic in STATISTICS.items():
                found[criterion, target, name] = bootstrap(groups, statistic, resamples)
    return found


def rank_among(distance: float, masks: Sequence[Measured]) -> int:
    """The number of random masks with the same or a smaller distance to the real images."""
    return sum(mask.distance <= distance for mask in masks)
