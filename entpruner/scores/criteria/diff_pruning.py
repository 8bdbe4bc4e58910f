"""Diff-Pruning: Taylor importance without the timesteps that have little loss left to lose.

    score_i = Σ_w | w Σ_{t: L_t > threshold · L_max} ∂L_t/∂w |

Source: Diff-Pruning (Fang et al. 2023, "Structural pruning for diffusion models"), there for channels. The sum over a
whole block is ours. The authors' code goes through t = 0, 1, 2, … on one batch and stops at the first t whose loss is
below the threshold. That leaves out the same timesteps where the loss falls with t, as it does where noise is
predicted. Ours: L_t is the mean training loss of the draws in a timestep bin, and bins below the threshold are left out
wherever they lie. So the rule is the same for a loss with another course, as that of a velocity.
"""

import torch

from entpruner.scores.context import Importance, ScoreContext, mean_by_stratum
from entpruner.scores.first_order import first_order

COST = "gradients"
NEEDS_IMAGES = True


def score(context: ScoreContext) -> Importance:
    """First-order importance of every block, on the draws of the timestep bins that ``settings.loss_threshold`` leaves.

    With a threshold of 0 it is Taylor importance.
    """
    loss, bin_of = [], []
    with torch.no_grad():
        for batch in context.draws():
            loss.append(context.losses(batch, context.model(*batch.inputs)))
            bin_of.append(context.bins(batch.t))
    by_bin = mean_by_stratum(torch.cat(loss)[None].double(), torch.cat(bin_of), context.settings.bins)[0]  # (bins,)
    largest = by_bin.nan_to_num(0).max()  # a bin without draws has no mean, and nothing to count
    informative = by_bin >= context.settings.loss_threshold * largest
    return first_order(context, lambda t: informative[context.bins(t)])
