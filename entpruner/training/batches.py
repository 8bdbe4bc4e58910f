"""The images of a step follow from its number alone, so a resumed run needs no state of a sampler."""

from functools import lru_cache

import torch
from torch import Tensor

from entpruner.system.randomness import generator


def batch_indices(step: int, batch_size: int, count: int, seed: int, artefact: str) -> Tensor:
    """Indices (batch_size,) into ``count`` images. Every epoch has each image once, in a new order.

    Epochs follow each other without a gap, so one batch may have images of two epochs, or of more if it is larger than
    the data set.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    first, last = step * batch_size // count, ((step + 1) * batch_size - 1) // count
    orders = torch.cat([permutation(count, seed, artefact, epoch) for epoch in range(first, last + 1)])
    return orders[positions - first * count]


@lru_cache(maxsize=2)  # many steps use the order of one epoch, and a batch rarely uses those of more than two
def permutation(count: int, seed: int, artefact: str, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, artefact, "epoch", epoch))
