"""How sure a mean over seeds is, by Student's t-distribution."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.special import stdtrit  # scipy.stats, which has the same number, takes most of a second to import


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's distribution; with infinite ``freedom`` that of the normal distribution."""
    return float(stdtrit(freedom, probability))


def t_interval(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half-width of Student's interval of the mean of the values; None with fewer than two, whose spread is unknown."""
    if len(values) < 2:
        return None
    return t_quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
