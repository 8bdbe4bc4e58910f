"""Conditional Entropy Deviation, the paper's criterion: how far a block's removal moves the output's entropy.

    CED_i = | H(X without block i) - H(X) |

X is the network's prediction (noise or velocity, image channels only) over a fixed set of draws (x0, y, t, noise), and
H is the entropy of a Gaussian fitted to it. The paper gives the formula and the Gaussian. Everything else here is our
choice and a setting: the number of draws and their stratified t, labels that are never dropped, the estimator (two of
them beyond the paper), nats per dimension (a constant factor), pooling over t and classes as the default. Source: arXiv
2511.21122, section 3.3, through public summaries of it.

The sign that the absolute value removes is reported as H(X without block i) - H(X). Where it is positive the pruned
network drifts towards noise, where it is negative it collapses.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.scores.context import Context, Importance, require_finite
from entpruner.scores.entropy import (
    VARIANCE_FLOOR,
    MomentSums,
    entropy,
    jackknife_stderr,
    moments,
    neighbour_variances,
    principal_variances,
    random_subspaces,
    variance,
)
from entpruner.system.randomness import generator

COST = "removals"


def score(context: Context) -> Importance:
    """CED of every block, with the entropies pooled, by timestep bin and by class.

    ``settings.reduction`` says which of the three ranks: |pooled change|, or the mean of |change| over the timestep
    bins, or over the classes, that have draws enough. Raises UserError if nothing has draws enough for the estimator.
    """
    settings = context.settings
    estimate = from_moments if settings.estimator in ("scalar", "diagonal") else from_samples
    entropies = estimate(context)
    change = {name: h[1:] - h[:1] for name, h in entropies.total.items()}  # (L, S)
    signed = change[settings.reduction]
    return Importance(
        value=signed.abs().nanmean(1),
        signed=signed.nanmean(1),
        stderr=stderr_of_mean_change(entropies.without_each_group, signed.sign()),
        draws=settings.draws,
        pooled=change["pooled"][:, 0],  # it sees every draw, so it tells if an output was not finite
        per_timestep=change["timestep"],
        per_class=change["class"],
        unpruned={name: h[0] for name, h in entropies.total.items()},
        floored=entropies.floored,
    )


@dataclass(frozen=True)
class Entropies:
    """Nats per dimension of each variant: the whole network is 0, i+1 lacks block i. NaN where draws are too few."""

    total: dict[str, Tensor]  # (V, S) for each reduction
    without_each_group: Tensor  # (V, S, G) for the reduction that ranks: the replicates of the jackknife
    floored: int


def predictions(context: Context) -> Iterator[tuple[int, Tensor, dict[str, Tensor], Tensor]]:
    """(variant, groups of the jackknife (B,), the stratum of each draw by reduction (B,), predictions (B, C, H, W))."""
    for variant, batch, prediction in context.removal_predictions():
        bins = context.bins(batch.t)
        yield variant, batch.group, {"pooled": torch.zeros_like(bins), "timestep": bins, "class": batch.y}, prediction


def sizes(context: Context) -> dict[str, int]:
    """How many strata each reduction has."""
    return {"pooled": 1, "timestep": context.settings.bins, "class": context.num_classes}


def from_moments(context: Context) -> Entropies:
    """Entropies by ``scalar`` and ``diagonal``, from moments that are summed as the predictions stream by."""
    settings, variants = context.settings, 1 + len(context.model.blocks)
    groups = context.groups
    sums = {
        name: MomentSums(variants, size, groups if name == settings.reduction else 1)
        for name, size in sizes(context).items()
    }
    for variant, group, stratum, prediction in predictions(context):
        sample = moments(prediction, settings.estimator)
        for name in sums:
            sums[name].add(variant, stratum[name], group, sample)
    return Entropies(
        total={name: entropy(variance(s.total)) for name, s in sums.items()},
        without_each_group=entropy(variance(sums[settings.reduction].without_each_group)),
        floored=int((variance(sums[settings.reduction].total) < VARIANCE_FLOOR).sum()),
    )


def from_samples(context: Context) -> Entropies:
    """Entropies by ``low_rank`` and ``knn``, from the predictions, of which 4·V·N·K bytes are kept on the device.

    That is 0.5 GB for 28 blocks, 1024 draws and latents of 4 x 32 x 32. One variant at a time is in float64.
    """
    settings = context.settings
    kept: list[list[Tensor]] = [[] for _ in range(1 + len(context.model.blocks))]  # by variant, batches of (B, K)
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    for variant, group, stratum, prediction in predictions(context):
        # A view would keep the output's variance channels alive with it.
        kept[variant].append(prediction.flatten(1).to(torch.float32, copy=True))
        if variant == 0:
            seen.append((group, stratum))

    fit = variances_of(context, kept[0][0].shape[1])
    parts = subsets(context, seen)
    h: dict[str, list[Tensor]] = {name: [] for name in parts}
    floored = 0
    for batches in kept:
        x = torch.cat(batches).double()
        require_finite(x)
        for name, members in parts.items():
            fitted = [fit(x[which]) for which in members]
            h[name].append(torch.stack([entropy(sigma2) for sigma2 in fitted]))
            if name == settings.reduction:
                floored += sum(int((sigma2 < VARIANCE_FLOOR).sum()) for sigma2 in fitted)
    total = {name: torch.stack(rows) for name, rows in h.items()}
    if total[settings.reduction].isnan().all():
        raise UserError(
            f"scoring.draws: {settings.draws} draws, reduced by {settings.reduction}, "
            f"are too few for the estimator {settings.estimator}; draw more"
        )
    replicates = total.pop("without each group").reshape(*total[settings.reduction].shape, -1)
    return Entropies(total, replicates, floored)


def variances_of(context: Context, k: int) -> Callable[[Tensor], Tensor]:
    """The fit that the settings ask for: (N, K) samples -> variances. All variants see the same projections."""
    settings = context.settings
    if settings.estimator == "low_rank":
        return partial(principal_variances, rank=settings.rank)
    random = generator(context.seed, context.artefact, "projections")
    subspaces = random_subspaces(settings.projections, k, settings.dimensions, random)
    return partial(neighbour_variances, subspaces=subspaces, neighbours=settings.neighbours)


def subsets(context: Context, seen: list[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Which draws are fitted together: (S, N) bool for every reduction.

    "without each group" is (S·G, N) bool, for the reduction that ranks.
    """
    groups = context.groups
    parts = {}
    for name, size in sizes(context).items():
        stratum = torch.cat([of[name] for _, of in seen])
        parts[name] = stratum == torch.arange(size, device=stratum.device)[:, None]
    group = torch.cat([group for group, _ in seen]) % groups
    others = group != torch.arange(groups, device=group.device)[:, None]  # (G, N)
    parts["without each group"] = (parts[context.settings.reduction][:, None] & others).flatten(0, 1)
    return parts


def stderr_of_mean_change(without_each_group: Tensor, sign: Tensor) -> Tensor:
    """Jackknife error of the mean over strata of |change|: (V, S, G), (L, S) -> (L,).

    ``sign`` is the sign of the change over all draws, and every replicate keeps it: |change| has a kink at 0, where the
    jackknife would fail.
    """
    h = without_each_group  # (V, S, G)
    return jackknife_stderr(((h[1:] - h[:1]) * sign[..., None]).nanmean(1))  # (L, G) -> (L,)
