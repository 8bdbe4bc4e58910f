"""Block influence: how far a block turns its tokens. The least turned first.

    BI_i = 1 - mean cosine(token entering block i, the same token leaving it)

Source: ShortGPT (Men et al. 2024), eq. 1. Two forms for a network that sees noised images:

    noised  x_t of the draws, t over the whole time axis, as the network is used
    clean   TinyFusion's released script (Fang et al. 2025), beside which its published baseline stands: images without
            noise, at the smallest quarter of the times (it draws t from 0 … 249 of 1000). Here: the draws of that
            quarter of each process's own axis, t < T/4 in diffusion and t > 3/4, near the data, in flow matching.

That script also never removes the last block; here every block may go.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from entpruner.scores.context import ScoreContext, Scores, draws
from entpruner.scores.hidden import Inputs, movement


def block_influence(context: ScoreContext) -> Scores:
    """Block influence of every block, on noised or on clean inputs as ``settings.block_influence`` says."""
    inputs = clean_inputs(context) if context.settings.block_influence == "clean" else noised_inputs(context)
    return movement("block_influence", context, inputs, turn)


def turn(entering: Tensor, leaving: Tensor) -> Tensor:
    """1 - cosine of each token: (B, T, D) twice -> (B, T)."""
    return 1 - F.cosine_similarity(entering, leaving, dim=-1)


def noised_inputs(context: ScoreContext) -> Iterator[Inputs]:
    for batch in draws(context):
        yield batch.x_t, batch.t, batch.y


def clean_inputs(context: ScoreContext) -> Iterator[Inputs]:
    """A quarter of the draws, t being stratified: at least one of any four."""
    for batch in draws(context):
        small = context.process.time_fraction(batch.t) < 0.25
        yield batch.x[small], batch.t[small], batch.y[small]
