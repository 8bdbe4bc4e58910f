"""What the correlation of a score with the distance is worth, once the most important block is taken out of it.

If one block of a network matters far more than the others, any score that knows this block predicts which random sets
do harm. So the correlation is measured three ways: over all random sets; over those that keep the critical block; and
against the one bit that says whether a set removes this block. The block is found without any criterion: its removal
alone raises the training loss most, in the same network and on the same draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entpruner.audit.statistics import Bootstrapped, Floats, Resamples, bootstrap, mean_prediction
from entpruner.audit.subnetworks import Measured

BIT = "the critical block is removed"
FEWEST = 5
"""The smallest number of sets in each seed over which a correlation is worth its interval."""

Harms = Mapping[str, Sequence[Floats]]
"""A predictor -> the harm that it expects of each random set, with each seed: (repeats, sets)."""


@dataclass(frozen=True)
class ThreeWays:
    """Spearman's ρ of a predictor with the distance after recovery, a mean over repeats and seeds."""

    all_sets: Bootstrapped
    kept: Bootstrapped | None
    """Over the sets that keep the critical block. None if a seed has too few of them."""
    beyond: Bootstrapped | None
    """Over all sets, minus that of the bit. None for the bit itself."""


def critical_block(blocks: Sequence[Measured]) -> int:
    """The block whose removal alone raises the training loss most. ``blocks`` are the removals of single blocks."""
    return max(blocks, key=lambda record: record.loss).dropped[0]


def removes(sets: Sequence[Measured], block: int) -> NDArray[np.bool_]:
    """Whether each set removes the block: (sets,)."""
    return np.array([block in record.dropped for record in sets])


def three_ways(
    harms: Harms, sets: Sequence[Sequence[Measured]], critical: Sequence[int], *keys: int | str
) -> dict[str, ThreeWays]:
    """Measure every predictor, and the bit, three ways. ``keys`` name the random numbers of the resamples.

    ``sets`` are the random sets of each seed, and ``critical`` is the critical block of each seed.
    """
    distances = [np.array([record.distance for record in records]) for records in sets]
    removed = [removes(records, block) for records, block in zip(sets, critical, strict=True)]
    everywhere = Resamples.draw([len(distance) for distance in distances], *keys, "all")
    keeping = [int((~gone).sum()) for gone in removed]
    within = Resamples.draw(keeping, *keys, "kept") if min(keeping) >= FEWEST else None

    def over_all(harm: Sequence[Floats]) -> Bootstrapped:
        return bootstrap(list(map(grouped, distances, harm)), mean_prediction, everywhere)

    def over_kept(harm: Sequence[Floats]) -> Bootstrapped | None:
        if within is None:
            return None
        groups = [grouped(d[~gone], h[:, ~gone]) for d, h, gone in zip(distances, harm, removed, strict=True)]
        return bootstrap(groups, mean_prediction, within)

    bit = over_all([gone[None].astype(float) for gone in removed])
    found = {BIT: ThreeWays(bit, None, None)}
    for name, harm in harms.items():
        rho = over_all(harm)
        found[name] = ThreeWays(rho, over_kept(harm), rho - bit)
    return found


def grouped(distance: Floats, harm: Floats) -> tuple[Floats, ...]:
    """The arrays of a seed that are resampled together: the distance (n,), and each repeat of the harm (n,)."""
    return distance, *harm
