"""Block influence: how far a block turns its tokens. The block that turns them least goes first.

    BI_i = 1 - mean cosine(token entering block i, the same token leaving it)

Source: ShortGPT (Men et al. 2024), eq. 1. There are two forms for a network that sees noised images:

    noised  x_t of the draws, t over the whole time axis, as the network is used
    clean   the form of TinyFusion's released script (Fang et al. 2025), which its published baseline was computed with:
            images without noise, at the smallest quarter of the times (it draws t from 0 … 249 of 1000). Here these are
            the draws of that quarter of each process's own axis: t < T/4 in diffusion, and t > 3/4, which is near the
            data, in flow matching.

That script also never removes the last block. Here every block may go.
"""

from collections.abc import Iterator

import torch.nn.functional as F

from entpruner.scores.context import Context, Importance, ScoreContext
from entpruner.scores.hidden import Inputs, movement, noised_inputs

COST = {"noised": 1, "clean": 0.25}


def score(context: Context) -> Importance:
    """Block influence of every block, on noised or on clean inputs as ``settings.block_influence`` says."""
    inputs = clean_inputs(context) if context.settings.block_influence == "clean" else noised_inputs(context)
    return movement(context, inputs, lambda entering, leaving: 1 - F.cosine_similarity(entering, leaving, dim=-1))


def clean_inputs(context: Context) -> Iterator[Inputs]:
    """The images of a quarter of the draws. As t is stratified, that is at least one of any four draws."""
    assert isinstance(context, ScoreContext)  # only its draws have images without noise
    for batch in context.draws():
        small = context.process.time_fraction(batch.t) < 0.25
        yield batch.x[small], batch.t[small], batch.y[small]
