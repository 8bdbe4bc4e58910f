"""The network's output without each of its blocks, at about half the price of running every pruned network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork


@torch.no_grad()
def removal_outputs(model: BlockNetwork, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
    """Yield (None, output of the whole network), then (i, output without block i) for every position i.

    Dropping block i leaves what enters it as it was, and what leaves it is what enters it. One full pass keeps the
    state before each block, so block i's removal costs blocks i+1 … L-1 and the head: L(L-1)/2 + L block
    evaluations, against L(L-1) + L for a full forward a removal. The numbers are those of the pruned network, bit for
    bit. Memory: the states of L blocks; the Transformer's are tokens, (L, B, T, D). Outputs are (B, 2C, H, W).
    """
    state, c = model.embed(x_t, t, y)
    blocks = list(enumerate(model.blocks))
    before = []  # what enters each block
    for position, block in blocks:
        before.append(state)
        state = model.onward(position, block(state, c))
    yield None, model.head(state, c)
    for removed, entering in enumerate(before):
        state = model.onward(removed, entering)
        for position, block in blocks[removed + 1 :]:
            state = model.onward(position, block(state, c))
        yield removed, model.head(state, c)
