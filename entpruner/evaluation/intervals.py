"""Confidence intervals of means over seeds, by Student's t-distribution."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.special import stdtrit  # the import of scipy.stats takes most of a second


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's distribution. With infinite ``freedom`` this is the normal distribution."""
    return float(stdtrit(freedom, probability))


def t_interval(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half the width of Student's confidence interval of the mean of some values; None for fewer than two of them."""
    if len(values) < 2:
        return None
    return t_quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
