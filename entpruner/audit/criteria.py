"""What a criterion says of single blocks and of sets of them, to be held against what was measured."""

from collections.abc import Mapping, Sequence

from entpruner.audit.subnetworks import Blocks
from entpruner.params import SIZED, AuditedCriterion, Criterion
from entpruner.scores import Scores

SETS_ONLY: tuple[Criterion, ...] = (*SIZED, "first", "last")
"""Criteria whose values only say which set they take: summed over other sets they mean nothing."""


def block_values(scores: Scores, audited: AuditedCriterion) -> dict[int, float]:
    """What each block is ranked by."""
    values = scores.signed if audited.rank_by == "signed" else scores.value
    return dict(zip(scores.blocks, values, strict=True))


def chosen(values: Mapping[int, float], size: int) -> Blocks:
    """The ``size`` blocks that go first: the lowest values, ties by block number."""
    order = sorted(values, key=lambda block: (values[block], block))
    return tuple(sorted(order[:size]))


def additive(values: Mapping[int, float], masks: Sequence[Blocks]) -> list[float]:
    """The score of each set: the sum of its blocks', as greedy pruning takes for granted."""
    return [sum(values[block] for block in mask) for mask in masks]
