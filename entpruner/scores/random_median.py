"""The random mask of median loss: of M random sets of blocks to remove, the one whose removal does middling damage.

Source: TinyFusion (Fang et al. 2025), Table 3: of random 14-of-28 masks, that of median calibration loss recovered to a
far better FID (6.45) than that of least loss (20.69). A criterion that looks for the least deviation has to beat it.
Theirs were 100,000 masks; M is ``settings.masks`` here. The calibration loss is the mean training loss on the draws.
"""

import torch
from torch import Tensor

from entpruner.scores.context import ScoreContext, Scores, blocks_to_go, draws, ranking, removal
from entpruner.system.randomness import generator


def random_median(context: ScoreContext) -> Scores:
    """0 for the blocks of the median mask, 1 for the others. Raises UserError as blocks_to_go does.

    ``settings.trial`` numbers the sets of masks of a seed.
    """
    depth, remove = len(context.model.blocks), blocks_to_go("random_median", context)
    random = generator(context.seed, context.artefact, "random_median", context.settings.trial)
    masks = [torch.randperm(depth, generator=random)[:remove].tolist() for _ in range(context.settings.masks)]
    losses = ranking("random_median", calibration_losses(context, masks))
    median = sorted(range(len(masks)), key=losses.__getitem__)[(len(masks) - 1) // 2]  # the lower of the middle two
    return removal("random_median", context, masks[median], draws=context.settings.draws)


@torch.no_grad()
def calibration_losses(context: ScoreContext, masks: list[list[int]]) -> Tensor:
    """Mean training loss of the network without the blocks at each mask's positions, all on the same draws: (M,)."""
    model, process = context.model, context.process
    total = torch.zeros(len(masks), dtype=torch.float64, device=context.device)
    for batch in draws(context):
        embedded, c = model.embed(batch.x_t, batch.t, batch.y)
        for index, mask in enumerate(masks):
            state = embedded
            for position, block in enumerate(model.blocks):
                state = model.onward(position, state if position in mask else block(state, c))
            # The loss wants a network: here is one that already knows its answer.
            answer = model.head(state, c)
            losses = process.losses(lambda *_, answer=answer: answer, batch.x, batch.noise, batch.t, batch.y)["loss"]
            total[index] += losses.sum(dtype=torch.float64)
    return total / context.settings.draws
