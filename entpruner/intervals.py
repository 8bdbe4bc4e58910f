"""How sure a mean over seeds is."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.stats import t as student


def t_interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half-width of Student's interval of the mean of two values or more."""
    return float(student.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
