"""Similarity by mean squared difference: how far a block moves its tokens. The least moved first.

    score_i = mean (x_out - x_in)²     over tokens and channels of what enters and leaves block i

Source: Flux.1 Lite (Freepik 2024), as TinyFusion (Fang et al. 2025) describes and compares it; here on noised inputs,
over all times. Unlike block influence, a cosine, it sees lengths: a block that moves long tokens far may hardly turn
them.
"""

from torch import Tensor

from entpruner.scores.context import ScoreContext, Scores, draws
from entpruner.scores.hidden import movement


def similarity_mse(context: ScoreContext) -> Scores:
    """Mean squared difference between what enters and what leaves every block."""
    inputs = ((batch.x_t, batch.t, batch.y) for batch in draws(context))
    return movement("similarity_mse", context, inputs, squared_difference)


def squared_difference(entering: Tensor, leaving: Tensor) -> Tensor:
    """Of each token, over its channels: (B, T, D) twice -> (B, T)."""
    return (leaving - entering).square().mean(-1)
