"""How far each block moves its tokens, for the criteria that compare what enters a block with what leaves it."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from entpruner.scores.context import Importance, ScoreContext, draws

Inputs = tuple[Tensor, Tensor, Tensor]  # images (B, C, H, W), times (B,), labels (B,)
Distance = Callable[[Tensor, Tensor], Tensor]  # tokens that enter and that leave a block, (B, T, D) each -> (B, T)


def noised_inputs(context: ScoreContext) -> Iterator[Inputs]:
    """The inputs of the network as it is used: noised images of all draws."""
    for batch in draws(context):
        yield batch.x_t, batch.t, batch.y


@torch.no_grad()
def movement(context: ScoreContext, inputs: Iterable[Inputs], distance: Distance) -> Importance:
    """The mean distance between the tokens that enter and those that leave each block, in one pass of the network.

    The standard error is that of the mean over the inputs.
    """
    model, batches = context.model, []
    for x, t, y in inputs:
        state, c = model.embed(x, t, y)
        distances = []
        for position, block in enumerate(model.blocks):
            entering, state = model.hidden(state), block(state, c)
            distances.append(distance(entering, model.hidden(state)).flatten(1).mean(1))
            state = model.onward(position, state)
        batches.append(torch.stack(distances))  # (L, B)
    moved = torch.cat(batches, dim=1).double()  # (L, N)
    n = moved.shape[1]
    return Importance(moved.mean(1), stderr=moved.std(1) / n**0.5, draws=n)
