"""The network's output without each of its blocks, at about half the price of running every pruned network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from entpruner.models.transformer import Transformer


@torch.no_grad()
def removal_outputs(model: Transformer, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
    """Yield (None, output of the whole network), then (i, output without block i) for every position i.

    Dropping block i leaves what enters it as it was, and what leaves it is what enters it. One full pass keeps the
    tokens before each block, so block i's removal costs blocks i+1 … L-1 and the head: L(L-1)/2 + L block
    evaluations, against L(L-1) + L for a full forward a removal. The numbers are those of the pruned network, bit for
    bit. Memory: the tokens of L blocks, (L, B, T, D). Outputs are (B, 2C, H, W).
    """
    tokens, c = model.embed(x_t, t, y)
    before = []  # what enters each block
    for block in model.blocks:
        before.append(tokens)
        tokens = block(tokens, c)
    yield None, model.head(tokens, c)
    for position in range(len(model.blocks)):
        tokens = before[position]
        for block in model.blocks[position + 1 :]:
            tokens = block(tokens, c)
        yield position, model.head(tokens, c)
