"""Similarity by mean squared difference: how far a block moves its tokens. The block that moves them least goes first.

    score_i = mean (x_out - x_in)²     over tokens and channels of what enters and leaves block i

Source: Flux.1 Lite (Freepik 2024), as TinyFusion (Fang et al. 2025) describes and compares it. Here the inputs are
noised, over all times. Block influence, a cosine, does not see lengths and this criterion does: a block that moves long
tokens far may hardly turn them.
"""

from entpruner.scores.context import Context, Importance
from entpruner.scores.hidden import movement, noised_inputs

COST = 1


def score(context: Context) -> Importance:
    """Mean squared difference between what enters and what leaves every block."""
    return movement(context, noised_inputs(context), lambda entering, leaving: (leaving - entering).square().mean(-1))
