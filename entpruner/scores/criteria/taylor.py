"""Taylor: the first-order estimate of how much the loss depends on a block's weights. The lowest goes first.

    score_i = Σ_w | w ∂L/∂w |     over all parameters of block i, L the mean training loss over the draws

Source: Molchanov et al. 2019, "Importance estimation for neural network pruning", and the baseline of that name in
Diff-Pruning (Fang et al. 2023), for channels. The sum over a whole block is ours. Diff-Pruning's code takes the
absolute value of a channel's sum for ``taylor``, and of each weight for its own score. Here both take it of each
weight, so that ``taylor`` and ``diff_pruning`` differ in their timesteps alone.

At a minimum of the loss its mean gradient is zero: the better the network is trained, the more of the score is sampling
noise of the N draws. Its standard error is not estimated.
"""

import torch

from entpruner.scores.context import Context, Importance
from entpruner.scores.first_order import first_order

COST = "gradients"


def score(context: Context) -> Importance:
    """First-order importance of every block, on the draws of all timesteps."""
    return first_order(context, lambda t: torch.ones_like(t, dtype=torch.bool))
