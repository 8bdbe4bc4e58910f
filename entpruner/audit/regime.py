"""The audit's regime: how much is pruned and how long is recovered, chosen before any criterion is looked at.

Where random masks end at the same distance, no criterion can be right or wrong. So each candidate regime, from mild to
hard, is tried with random masks, each recovered several times over, and the rule is:

    the first candidate in which at least ``share`` of the variance of the log distance lies between masks;
    if there is none, the one in which that share is largest.

The logarithm, because distances spread in proportion to their size. Every number tried is kept.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from entpruner.audit.statistics import Estimate, consistency
from entpruner.audit.subnetworks import Blocks
from entpruner.params.audit import Regime, RegimeTrials
from entpruner.params.base import Frozen


class Trial(Frozen):
    """One candidate."""

    regime: Regime
    masks: tuple[Blocks, ...]
    distances: tuple[tuple[float, ...], ...]
    """After recovery, mask by repeat."""
    share: Estimate | None
    """Of the variance of the log distance that lies between masks: intraclass correlation; None if nothing varies."""


class RegimeChoice(Frozen):
    regime: Regime
    size: int
    """Blocks removed."""
    reached: bool
    """Whether it reached ``share``, or is only the best of what was tried."""
    trials: tuple[Trial, ...]
    """Candidates after the first that reaches ``share`` are not tried."""

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """What ``audit_regime`` wrote, its timing left out."""
        return cls.model_validate({name: content[name] for name in cls.model_fields})


def choose_regime(
    settings: RegimeTrials,
    masks: Callable[[Regime], Sequence[Blocks]],
    distance: Callable[[Regime, Blocks, int], float],
) -> RegimeChoice:
    """Try the candidates in turn. ``masks``: random ones of the regime's size; ``distance``: of one, in one repeat."""
    trials = []
    for regime in settings.candidates:
        trials.append(tried(regime, masks(regime), settings.repeats, distance))
        if choice([trials[-1].share], settings.share)[1]:
            break
    chosen, reached = choice([trial.share for trial in trials], settings.share)
    trial = trials[chosen]
    return RegimeChoice(regime=trial.regime, size=len(trial.masks[0]), reached=reached, trials=tuple(trials))


def choice(shares: Sequence[Estimate | None], threshold: float) -> tuple[int, bool]:
    """Which of the candidates is taken, and whether it reached the threshold."""
    known = [-np.inf if share is None else share.value for share in shares]
    first = next((index for index, share in enumerate(known) if share >= threshold), None)
    return (int(np.argmax(known)), False) if first is None else (first, True)


def tried(
    regime: Regime, masks: Sequence[Blocks], repeats: int, distance: Callable[[Regime, Blocks, int], float]
) -> Trial:
    distances = [[distance(regime, mask, repeat) for repeat in range(repeats)] for mask in masks]
    return Trial(
        regime=regime,
        masks=tuple(masks),
        distances=tuple(map(tuple, distances)),
        share=consistency(np.log(distances)),
    )
