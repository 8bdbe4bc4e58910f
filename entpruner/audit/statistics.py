"""Rank correlations, and how sure one can be of them.

There are two kinds of interval for a mean over seeds, both of 95 % unless told otherwise. Student's t-interval is for
one number a seed. The hierarchical percentile bootstrap is for a statistic that is computed within each seed from its
units (blocks or masks): seeds are drawn with replacement, and within each drawn seed its units, with all that belongs
to a unit. Differences of two such means are taken resample by resample.

Simulations with three seeds show what the bootstrap of Spearman's ρ covers. It covers 98 to 99 % with 5 to 30 units
where all seeds have the same true correlation, because noise within a seed counts twice (between the seeds, and in the
units drawn). It covers 88 % with 30 units and 95 % with 12 where the true correlation itself varies between seeds
(standard deviation 0.3 of Fisher's z), because three seeds tell little of that. With 3 units a seed it can fall to
77 %, so there should be 5 or more.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from entpruner.evaluation.intervals import t_interval
from entpruner.system.randomness import generator

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Statistic = Callable[..., Floats]
"""A function of arrays whose last axis is the units; its result lacks that axis, and is NaN where it is not defined."""

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number and the interval around it."""

    value: float
    low: float
    high: float

    def excludes(self, number: float) -> bool:
        return not self.low <= number <= self.high

    def __format__(self, form: str) -> str:
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


# --------------------------------------------------------------------------------------------------- rank correlations


def spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's ρ over the last axis, ties with their mean rank: (..., n), (..., n) -> (...)."""
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (stats.rankdata(v, axis=-1) for v in (x, y)))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def kendall(x: Floats, y: Floats) -> Floats:
    """Kendall's τ-b over the last axis: (..., n), (..., n) -> (...)."""
    a, b = (signs(stats.rankdata(v, axis=-1)) for v in (x, y))
    both, first, second = (v.sum((-2, -1), dtype=np.int32).astype(np.float64) for v in (a * b, np.abs(a), np.abs(b)))
    with np.errstate(invalid="ignore"):
        return both / np.sqrt(first * second)


def signs(ranks: Floats) -> NDArray[np.int8]:
    """Which of each pair ranks higher: (..., n) -> (..., n, n) of -1, 0, 1."""
    above = ranks[..., :, None] > ranks[..., None, :]
    return above.astype(np.int8) - above.swapaxes(-1, -2).astype(np.int8)


# ----------------------------------------------------------------------------------------------------------- bootstrap


@dataclass(frozen=True)
class Resamples:
    """B draws of G groups (seeds) and of the units in them. All that is to be compared shares them."""

    groups: Integers  # (B, G)
    units: tuple[Integers, ...]  # for each group (B, n)

    @staticmethod
    def draw(sizes: Sequence[int], *keys: int | str, count: int = RESAMPLES) -> "Resamples":
        """Resamples for groups of these sizes; the same keys give the same draws."""
        random = generator(*keys)
        groups = torch.randint(len(sizes), (count, len(sizes)), generator=random)
        units = tuple(torch.randint(size, (count, size), generator=random).numpy() for size in sizes)
        return Resamples(groups.numpy(), units)

    def mean(self, replicates: Sequence[Floats]) -> Floats:
        """Means over the drawn groups of each group's replicates (B,): (B,).

        If a group is drawn twice in one resample, it brings two different replicates, those of neighbouring resamples.
        """
        count, places = self.groups.shape
        rows = (np.arange(count)[:, None] + np.arange(places)) % count  # (B, G)
        return np.stack(replicates)[self.groups, rows].mean(1)


@dataclass(frozen=True)
class Bootstrapped:
    """A mean over seeds, and its value in each resample."""

    value: float
    replicates: Floats  # (B,)

    def __sub__(self, other: "Bootstrapped") -> "Bootstrapped":
        """The paired difference; both must come from the same resamples."""
        return Bootstrapped(self.value - other.value, self.replicates - other.replicates)

    def estimate(self, level: float = LEVEL) -> Estimate | None:
        """The mean with its percentile interval over the resamples that are defined; None if the mean is not (nothing
        varies)."""
        defined = self.replicates[np.isfinite(self.replicates)]
        if not np.isfinite(self.value) or not len(defined):
            return None
        low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2)).tolist()
        return Estimate(self.value, low, high)


def bootstrap(groups: Sequence[tuple[Floats, ...]], statistic: Statistic, resamples: Resamples) -> Bootstrapped:
    """The mean over groups of ``statistic(*arrays)``. The arrays of a group are (n,), of the same units."""
    value = np.mean([statistic(*arrays) for arrays in groups])
    drawn = [
        statistic(*(array[units] for array in arrays)) for arrays, units in zip(groups, resamples.units, strict=True)
    ]
    return Bootstrapped(float(value), resamples.mean(drawn))


# --------------------------------------------------------------------------------------------------- exact intervals


def mean_over_seeds(values: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """Student's t-interval of the mean of one number (or paired difference) a seed; None with fewer than two."""
    half = t_interval(values, level)
    if half is None:
        return None
    mean = float(np.mean(values))
    return Estimate(mean, mean - half, mean + half)


def ratio_over_seeds(logs: Sequence[float]) -> Estimate | None:
    """The geometric mean of one ratio a seed, from the logarithms of the ratios; None with fewer than two."""
    found = mean_over_seeds(logs)
    return found and Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def proportion(successes: int, trials: int, level: float = LEVEL) -> Estimate:
    """Clopper and Pearson's exact interval of a share of independent trials."""
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Estimate(successes / trials, float(low), float(high))


def consistency(values: Floats, level: float = LEVEL) -> Estimate | None:
    """Intraclass correlation of (subjects, repeats): the subjects' share of the variance, with its exact F-interval.

    This is ICC(C,1) of McGraw and Wong (1996), two-way: what a repeat does to all subjects alike does not count, as
    subjects are compared within a repeat (there they share their random numbers). At 0 or less the subjects cannot be
    told apart. It is None where nothing varies at all.
    """
    n, k = values.shape
    subjects = values.mean(1) - values.mean()
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    between, within = k * (subjects**2).sum() / (n - 1), (rest**2).sum() / ((n - 1) * (k - 1))
    if between == within == 0:
        return None
    with np.errstate(divide="ignore"):
        f = np.float64(between) / within
    freedom = (n - 1, (n - 1) * (k - 1))
    tail = (1 + level) / 2
    lower, upper = f / stats.f.ppf(tail, *freedom), f * stats.f.ppf(tail, *freedom[::-1])
    return Estimate(*(share(float(ratio), k) for ratio in (f, lower, upper)))


def share(f: float, repeats: int) -> float:
    """The variance ratio F as a share of the variance: (F - 1) / (F + k - 1)."""
    return 1.0 if np.isinf(f) else (f - 1) / (f + repeats - 1)


def chance_of_ranks(ranks: Sequence[int], sizes: Sequence[int]) -> float:
    """The exact probability that ranks drawn evenly and independently from 0 … size sum to no more than these.

    A rank says how many of a seed's ``size`` random masks did better than the criterion's mask. If that mask were one
    more random mask, every rank would have the same probability.
    """
    distribution = np.ones(1)
    for size in sizes:
        distribution = np.convolve(distribution, np.full(size + 1, 1 / (size + 1)))
    return float(min(1.0, distribution[: sum(ranks) + 1].sum()))
