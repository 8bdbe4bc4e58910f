"""Random order: the control that every criterion has to beat. A permutation of the blocks, from the study's seed.

``settings.trial`` numbers the permutations of a seed.
"""

import torch

from entpruner.scores.context import ScoreContext, Scores, unsigned
from entpruner.system.randomness import generator


def random(context: ScoreContext) -> Scores:
    """Each block's value is its place in a seeded permutation."""
    draw = generator(context.seed, context.artefact, context.settings.trial)
    place = torch.randperm(len(context.model.blocks), generator=draw).double()
    return unsigned("random", context, place, stderr=0.0)
