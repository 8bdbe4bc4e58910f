"""Diff-Pruning: Taylor importance without the timesteps that have little loss left to lose.

    score_i = Σ_w | w Σ_{t: L_t > threshold · L_max} ∂L_t/∂w |

Source: Diff-Pruning (Fang et al. 2023, "Structural pruning for diffusion models"), there for channels; the sum over a
whole block is ours. The authors' code goes through t = 0, 1, 2, … on one batch and stops at the first t below the
threshold, which is the same where the loss falls with t, as it does where noise is predicted. Ours: L_t is the mean
training loss of the draws in a timestep bin, and bins below the threshold are left out wherever they lie, so that the
rule is the same for a loss with another course, as that of a velocity.
"""

import torch

from entpruner.scores.context import ScoreContext, Scores, draws, timestep_bins
from entpruner.scores.sensitivity import mean_by_stratum
from entpruner.scores.taylor import first_order


def diff_pruning(context: ScoreContext) -> Scores:
    """First-order importance of every block, on the draws of the timestep bins that ``settings.loss_threshold`` leaves.

    With a threshold of 0 it is Taylor importance.
    """
    losses, bin_of = [], []
    with torch.no_grad():
        for batch in draws(context):
            losses.append(context.process.losses(context.model, batch.x, batch.noise, batch.t, batch.y)["loss"])
            bin_of.append(timestep_bins(context, batch.t))
    by_bin = mean_by_stratum(torch.cat(losses)[None].double(), torch.cat(bin_of), context.settings.bins)[0]  # (bins,)
    largest = by_bin.nan_to_num(0).max()  # a bin without draws has no mean, and nothing to count
    informative = by_bin >= context.settings.loss_threshold * largest
    return first_order("diff_pruning", context, lambda t: informative[timestep_bins(context, t)])
