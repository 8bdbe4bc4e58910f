"""Ways of computing the same thing, timed in turn in one process: what slows all of them cancels in their ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Way = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Two or more ways of the same thing. The first is ours, and each other one is compared with it."""

    title: str
    ways: Mapping[str, Way]
    bars: Mapping[str, float] = field(default_factory=dict)
    """How many times as fast as each other way ours must at least be."""
    differences: Mapping[str, float] = field(default_factory=dict)
    """The largest relative difference between our numbers and those of other ways that compute the same numbers."""
    threads: int = 1
    rounds: int = 5
    clock: Callable[[], float] | None = None
    """The function that is read before and after each call, in seconds. By default it is the time on the wall."""


def measured(comparison: Comparison, device: torch.device) -> dict[str, Any]:
    """Seconds of every way by round, and how many times as fast as each other way ours is: median and quartiles.

    A round runs every way once, and a ratio is of two times of one round. One round before the first is not counted.
    """
    torch.set_num_threads(comparison.threads)
    clock = comparison.clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in comparison.ways}
    for round_ in range(comparison.rounds + 1):
        for name, way in comparison.ways.items():
            started = clock()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                seconds[name].append(clock() - started)
    ours, *others = seconds
    return {
        "ours": ours,
        "threads": comparison.threads,
        "seconds": seconds,
        "times_as_fast": {other: spread(seconds[other], seconds[ours]) for other in others},
        "bars": dict(comparison.bars),
        "differences": dict(comparison.differences),
    }


def spread(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within a round."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}
