"""Conditional Entropy Deviation, the paper's criterion: how far a block's removal moves the output's entropy.

    CED_i = | H(X without block i) - H(X) |

X is the network's prediction (noise or velocity, image channels only) over a fixed set of draws (x0, y, t, noise), H
the entropy of a Gaussian fitted to it. The paper gives the formula and the Gaussian; everything else here is our choice
and a setting: the number of draws and their stratified t, labels never dropped, the estimator, per-dimension nats (a
constant factor), pooling over t and classes as the default. Source: arXiv 2511.21122, section 3.3, through public
summaries of it.

The sign that the absolute value removes is reported as H(X without block i) - H(X): positive, the pruned network drifts
towards noise; negative, it collapses.
"""

import torch
from torch import Tensor

from entpruner.scores.context import ScoreContext, Scores, draws, listed, ranking, timestep_bins
from entpruner.scores.entropy import GROUPS, VARIANCE_FLOOR, MomentSums, entropy, jackknife_stderr, moments, variance
from entpruner.scores.prefix import removal_outputs


def ced(context: ScoreContext) -> Scores:
    """CED of every block, with the entropies pooled, by timestep bin and by class.

    ``settings.reduction`` says which of the three ranks: |pooled change|, or the mean of |change| over the timestep
    bins, or over the classes, that have draws. Raises UserError if an output is not finite.
    """
    settings, model, process = context.settings, context.model, context.process
    strata = {"pooled": 1, "timestep": settings.bins, "class": context.images.num_classes}
    groups = min(GROUPS, settings.draws)
    variants = 1 + len(model.blocks)  # the whole network, then without block i
    sums = {
        name: MomentSums(variants, size, groups if name == settings.reduction else 1) for name, size in strata.items()
    }
    for batch in draws(context):
        stratum = {
            "pooled": torch.zeros_like(batch.index),
            "timestep": timestep_bins(context, batch.t),
            "class": batch.y,
        }
        for variant, (_, output) in enumerate(removal_outputs(model, batch.x_t, batch.t, batch.y)):
            sample = moments(process.prediction(output), settings.estimator)
            for name in strata:
                sums[name].add(variant, stratum[name], batch.index, sample)

    entropies = {name: entropy(variance(sums[name].total)) for name in strata}  # (V, S)
    change = {name: h[1:] - h[:1] for name, h in entropies.items()}  # (L, S)
    pooled = ranking("ced", change["pooled"][:, 0])  # first: it sees every draw, and tells if one was not finite
    signed = change[settings.reduction]
    return Scores(
        criterion="ced",
        blocks=model.kept_blocks,
        value=ranking("ced", signed.abs().nanmean(1)),
        signed=ranking("ced", signed.nanmean(1)),
        stderr=listed(stderr_of_mean_change(sums[settings.reduction], signed.sign())),
        pooled=pooled,
        per_timestep=listed(change["timestep"]),
        per_class=listed(change["class"]),
        unpruned={name: listed(h[0]) for name, h in entropies.items()},
        floored=int((variance(sums[settings.reduction].total) < VARIANCE_FLOOR).sum()),
        draws=settings.draws,
        seed=context.seed,
        settings=settings,
    )


def stderr_of_mean_change(sums: MomentSums, sign: Tensor) -> Tensor:
    """Jackknife error of the mean over strata of |change|: (L,). sign: (L, S), the change's sign over all draws.

    The signs are held at those of all draws: |change| has a kink at 0, where the jackknife would fail.
    """
    h = entropy(variance(sums.without_each_group))  # (V, S, G)
    return jackknife_stderr(((h[1:] - h[:1]) * sign[..., None]).nanmean(1))  # (L, G) -> (L,)
