"""Random order: the control that every criterion has to beat. It is a permutation of the blocks from the study's seed.

A seed has many permutations, and ``settings.trial`` numbers them.
"""

import torch

from entpruner.scores.context import Context, Importance
from entpruner.system.randomness import generator

COST = 0


def score(context: Context) -> Importance:
    """The value of each block is its place in a seeded permutation."""
    draw = generator(context.seed, context.artefact, context.settings.trial)
    return Importance(torch.randperm(len(context.model.blocks), generator=draw).double(), stderr=0.0)
