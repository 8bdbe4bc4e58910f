"""Random order: the control that every criterion has to beat. A permutation of the blocks, from the study's seed."""

import torch

from entpruner.randomness import generator
from entpruner.scores.context import ScoreContext, Scores, ranking


def random(context: ScoreContext) -> Scores:
    """Each block's value is its place in a seeded permutation."""
    blocks = context.model.kept_blocks
    place = torch.randperm(len(blocks), generator=generator(context.seed, context.artefact, 0)).double()
    return Scores(
        criterion="random",
        blocks=blocks,
        value=ranking("random", place),
        signed=ranking("random", place),
        stderr=(0.0,) * len(blocks),
        draws=0,
        seed=context.seed,
        settings=context.settings,
    )
