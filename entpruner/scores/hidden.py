"""How far each block moves its tokens: what the criteria that compare hidden states have in common."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from entpruner.scores.context import ScoreContext, Scores, unsigned

Inputs = tuple[Tensor, Tensor, Tensor]  # images (B, C, H, W), times (B,), labels (B,)
Distance = Callable[[Tensor, Tensor], Tensor]  # tokens that enter and that leave a block, (B, T, D) each -> (B, T)


@torch.no_grad()
def movement(criterion: str, context: ScoreContext, inputs: Iterable[Inputs], distance: Distance) -> Scores:
    """Mean distance between the tokens that enter and those that leave each block: one forward pass of the network.

    The standard error is that over the inputs. Raises UserError if a distance is not finite.
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
    return unsigned(criterion, context, moved.mean(1), stderr=moved.std(1) / n**0.5, draws=n)
