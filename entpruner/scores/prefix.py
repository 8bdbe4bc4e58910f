"""A network's outputs without each of its blocks, at about half the price of running every pruned network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork
from entpruner.scores.context import Draws, ScoreContext, draws


@torch.no_grad()
def removal_outputs(model: BlockNetwork, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
    """Yield (None, output of the whole network), then (i, output without block i) for every position i.

    If block i is dropped, what enters it stays as it was and goes on in place of what left it. One full pass keeps the
    state before each block, so the removal of block i costs blocks i+1 … L-1 and the head. That makes L(L-1)/2 + L
    block evaluations, where a full pass for each removal would take L(L-1) + L. The numbers are those of the pruned
    network, bit for bit. The states of L blocks are kept in memory: a transformer's are tokens, (L, B, T, D). Outputs
    are (B, 2C, H, W).
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


def removal_predictions(context: ScoreContext) -> Iterator[tuple[int, Draws, Tensor]]:
    """Yield (variant, batch, predictions (B, C, H, W)), for every batch of the draws and every variant of the network.

    Variant 0 is the whole network, and variant i+1 is the network without block i.
    """
    for batch in draws(context):
        for variant, (_, output) in enumerate(removal_outputs(context.model, batch.x_t, batch.t, batch.y)):
            yield variant, batch, context.process.prediction(output)
