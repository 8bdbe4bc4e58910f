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
    batches = []
    for x, t, y in inputs:
        tokens, c = context.model.embed(x, t, y)
        distances = []
        for block in context.model.blocks:
            entering, tokens = tokens, block(tokens, c)
            distances.append(distance(entering, tokens).flatten(1).mean(1))
        batches.append(torch.stack(distances))  # (L, B)
    moved = torch.cat(batches, dim=1).double()  # (L, N)
    n = moved.shape[1]
    return unsigned(criterion, context, moved.mean(1), stderr=moved.std(1) / n**0.5, draws=n)
