"""How sure a mean over seeds is: Student's t."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.special import stdtrit  # scipy.stats, which has the same number, takes most of a second to import


def t_quantile(probability: float, freedom: float) -> float:
    """Where Student's distribution has this much below it; ``freedom`` may be infinite, which is the normal one."""
    return float(stdtrit(freedom, probability))


def t_interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half-width of Student's interval of the mean of two values or more."""
    return t_quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
