"""Which images a step sees: a function of the step alone, so that a resumed run needs no sampler state."""

from functools import lru_cache

import torch
from torch import Tensor

from entpruner.system.randomness import generator


def batch_indices(step: int, batch_size: int, count: int, seed: int, artefact: str) -> Tensor:
    """Indices (batch_size,) into ``count`` images: each once an epoch, in a new order every epoch.

    Epochs follow each other without a gap, so that a batch may end one and begin the next (or several, where it is
    larger than the data set).
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    first, last = step * batch_size // count, ((step + 1) * batch_size - 1) // count
    orders = torch.cat([permutation(count, seed, artefact, epoch) for epoch in range(first, last + 1)])
    return orders[positions - first * count]


@lru_cache(maxsize=2)  # an epoch is many steps, and a batch rarely touches more than two epochs
def permutation(count: int, seed: int, artefact: str, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, artefact, "epoch", epoch))
