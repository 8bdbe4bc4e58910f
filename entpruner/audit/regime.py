"""The audit's regime: how much is pruned and how long is recovered, chosen before any criterion is looked at.

Where random masks end at the same distance, no criterion can be right or wrong. So each candidate regime, from mild to
hard, is tried with random masks, each of which is recovered several times. The rule takes the first candidate in which
at least ``share`` of the variance of the log distance lies between masks; if there is none, the candidate in which that
share is largest. It uses the logarithm because distances spread in proportion to their size.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from entpruner.audit.statistics import Estimate, consistency
from entpruner.audit.subnetworks import Blocks
from entpruner.params.audit import Regime, RegimeTrials
from entpruner.params.base import Frozen


class Trial(Frozen):
    """What random masks gave in one candidate regime."""

    regime: Regime
    masks: tuple[Blocks, ...]
    distances: tuple[tuple[float, ...], ...]
    """Distances after recovery, by mask, then by repeat."""
    share: Estimate | None
    """Share of the variance of the log distance that lies between masks (intraclass correlation); None if nothing
    varies."""

    @property
    def found(self) -> float:
        return -math.inf if self.share is None else self.share.value


class RegimeChoice(Frozen):
    regime: Regime
    size: int
    """Number of blocks removed."""
    reached: bool
    """True if the regime reached ``share``, False if it is only the best of what was tried."""
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
    """Try the candidates in turn, until one reaches the share.

    ``masks`` draws random masks of a regime's size; ``distance`` recovers one mask and measures it, for one repeat.
    """
    trials: list[Trial] = []
    for regime in settings.candidates:
        drawn = tuple(masks(regime))
        distances = [tuple(distance(regime, mask, repeat) for repeat in range(settings.repeats)) for mask in drawn]
        share = consistency(np.log(distances))
        trials.append(Trial(regime=regime, masks=drawn, distances=tuple(distances), share=share))
        if trials[-1].found >= settings.share:
            break
    best = max(trials, key=lambda trial: trial.found)  # the last one, if it reached the share
    reached = best.found >= settings.share
    return RegimeChoice(regime=best.regime, size=len(best.masks[0]), reached=reached, trials=tuple(trials))
