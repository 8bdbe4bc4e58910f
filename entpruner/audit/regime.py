"""The audit's regime: how much is pruned, and how long a sub-network is recovered. No criterion takes part in it.

No criterion can be right or wrong in a regime in which all random masks end at the same distance. So each candidate
regime, from mild to hard, is tried with random masks, and each mask is recovered several times. The first candidate is
taken in which at least ``share`` of the variance of the log distance lies between masks. If there is none, the
candidate with the largest share is taken. The distances enter as logarithms, because their spread is proportional to
their size.
"""

import math
from collections.abc import Callable, Sequence

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
    """(masks, repeats): the distances after recovery."""
    share: Estimate | None
    """The share of the variance of the log distance that lies between masks. None if all distances are equal."""

    @property
    def found(self) -> float:
        return -math.inf if self.share is None else self.share.value


class RegimeChoice(Frozen, extra="ignore"):
    """The regime of a backbone. The file of ``audit_regime`` holds the record of its run as well, which is ignored."""

    regime: Regime
    size: int
    """The number of blocks that are removed."""
    reached: bool
    """Whether the regime reached ``share``. If not, it is the best of the candidates."""
    trials: tuple[Trial, ...]
    """The candidates that were tried. Those after the first that reached ``share`` were not tried."""


def recovery_noise(choice: RegimeChoice) -> float:
    """The standard deviation of the log distance over recoveries of one set, in the regime that was chosen.

    What a recovery does to all sets alike is not part of it, because sets are compared within a recovery.
    """
    (chosen,) = (trial for trial in choice.trials if trial.regime == choice.regime)
    logs = np.log(chosen.distances)  # (sets, repeats)
    rest = logs - logs.mean(1, keepdims=True) - logs.mean(0) + logs.mean()
    n, k = logs.shape
    return math.sqrt((rest**2).sum() / ((n - 1) * (k - 1)))


def choose_regime(
    settings: RegimeTrials,
    masks: Callable[[Regime], Sequence[Blocks]],
    distance: Callable[[Regime, Blocks, int], float],
) -> RegimeChoice:
    """Try the candidates in turn, until one reaches the share.

    ``masks`` draws random masks of the size that a regime removes. ``distance`` recovers a mask in a regime, in the
    repeat of this number, and measures its distance.
    """
    trials: list[Trial] = []
    for regime in settings.candidates:
        drawn = tuple(masks(regime))
        distances = [tuple(distance(regime, mask, repeat) for repeat in range(settings.repeats)) for mask in drawn]
        share = consistency(np.log(distances))
        trials.append(Trial(regime=regime, masks=drawn, distances=tuple(distances), share=share))
        if trials[-1].found >= settings.share:
            break
    best = max(trials, key=lambda trial: trial.found)  # the last trial, if it reached the share
    reached = best.found >= settings.share
    return RegimeChoice(regime=best.regime, size=len(best.masks[0]), reached=reached, trials=tuple(trials))
