"""Confidence intervals of means over seeds, by Student's t-distribution."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtrit  # the import of scipy.stats takes most of a second


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's distribution. With infinite ``freedom`` this is the normal distribution."""
    return float(stdtrit(freedom, probability))


def t_interval(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half the width of Student's confidence interval of the mean of some values; None for fewer than two of them."""
    if len(values) < 2:
        return None
    return t_quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))


Bounds = tuple[float, float]
"""The smallest and the largest value that a quantity can have."""
UNBOUNDED, POSITIVE, SHARE, CORRELATION = (-math.inf, math.inf), (0.0, math.inf), (0.0, 1.0), (-1.0, 1.0)


def bounded_interval(values: Sequence[float], bounds: Bounds, level: float = 0.95) -> tuple[float, float] | None:
    """The ends of Student's confidence interval of the mean, which stay within the bounds of the quantity.

    The half-width is carried over to log((x - low) / (high - x)), and the ends are carried back (the delta method).
    This is the logarithm of a positive quantity, the log odds of a share, and Fisher's z of a correlation. None for
    fewer than two values.
    """
    half = t_interval(values, level)
    if half is None:
        return None
    mean, (low, high) = fmean(values), bounds
    if half == 0 or bounds == UNBOUNDED:
        return mean - half, mean + half
    below, above = mean - low, high - mean
    step = half * (1 / below + 1 / above)  # the half-width on the scale without bounds

    def moved(by: float) -> float:
        if math.isinf(above):
            return low + below * math.exp(by)
        if math.isinf(below):
            return high - above * math.exp(-by)
        return low + (high - low) / (1 + above / below * math.exp(-by))

    return moved(-step), moved(step)
