"""How far each block moves its tokens, for the criteria that compare what enters a block with what leaves it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from entpruner.scores.context import Context, Importance

Inputs = tuple[Any, ...]  # what the network is called with, as images (B, C, H, W), times (B,), labels (B,)
Distance = Callable[[Tensor, Tensor], Tensor]  # tokens that enter and that leave a block, (B, T, D) each -> (B, T)


def noised_inputs(context: Context) -> Iterator[Inputs]:
    """The inputs of the network as it is used: noised images of all draws."""
    for batch in context.draws():
        yield batch.inputs


def movement(context: Context, inputs: Iterable[Inputs], distance: Distance) -> Importance:
    """The mean distance between the tokens that enter and those that leave each block, in one pass of the network.

    The standard error is that of the mean over the inputs.
    """
    batches = []
    for given in inputs:
        distances = [distance(*visit).flatten(1).mean(1) for visit in context.model.visits(*given)]
        batches.append(torch.stack(distances))  # (L, B)
    moved = torch.cat(batches, dim=1).double()  # (L, N)
    n = moved.shape[1]
    return Importance(moved.mean(1), stderr=moved.std(1) / n**0.5, draws=n)
