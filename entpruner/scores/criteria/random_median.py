"""The random mask of median loss: of M random sets of blocks to remove, the one whose removal does middling damage.

Source: TinyFusion (Fang et al. 2025), Table 3. Of its random masks that keep 14 of 28 blocks, the one of median
calibration loss recovered to a far better FID (6.45) than the one of least loss (20.69). A criterion that looks for the
least deviation has to beat it. Theirs were 100,000 masks, and here M is ``settings.masks``. The calibration loss is the
mean training loss on the draws.
"""

import torch
from torch import Tensor

from entpruner.models.network import PartedNetwork
from entpruner.scores.context import Importance, ScoreContext, removal, require_finite
from entpruner.system.randomness import generator

COST = "masks"
SIZED = True
NEEDS_IMAGES = True
IN_PARTS = True


def score(context: ScoreContext) -> Importance:
    """0 for the blocks that the median mask removes, 1 for the others.

    A seed has many sets of M masks, and ``settings.trial`` numbers them.
    """
    depth, count = len(context.model.blocks), context.settings.masks
    random = generator(context.seed, context.artefact, "random_median", context.settings.trial)
    masks = [torch.randperm(depth, generator=random)[: context.set_size].tolist() for _ in range(count)]
    found = calibration_losses(context, masks)
    require_finite(found)
    order = sorted(range(count), key=found.tolist().__getitem__)
    median = order[(count - 1) // 2]  # the lower of the middle two, if the count is even
    return removal(context, masks[median], draws=context.settings.draws)


@torch.no_grad()
def calibration_losses(context: ScoreContext, masks: list[list[int]]) -> Tensor:
    """Mean training loss of the network without the blocks at each mask's positions, all on the same draws: (M,)."""
    model = context.model
    assert isinstance(model, PartedNetwork)  # because of IN_PARTS
    total = torch.zeros(len(masks), dtype=torch.float64, device=context.device)
    for batch in context.draws():
        embedded, c = model.embed(*batch.inputs)
        for index, mask in enumerate(masks):
            state = embedded
            for position, block in enumerate(model.blocks):
                state = model.onward(position, state if position in mask else block(state, c))
            total[index] += context.losses(batch, model.head(state, c)).sum(dtype=torch.float64)
    return total / context.settings.draws
