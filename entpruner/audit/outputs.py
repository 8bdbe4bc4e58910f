"""What entropies are of: the prediction, as CED takes it; the clean images that it implies; and whole samples.

The paper fits a Gaussian. So it is measured how far each of these is from Gaussian, and what entropies by estimators
that differ in this assumption say of the removal of each block. ``entropy.py`` describes the estimators. Negentropy is
the entropy of a Gaussian of the same variance minus the entropy, in nats: 0 for a Gaussian, and more for anything else.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from entpruner.audit.statistics import Floats
from entpruner.params.base import Frozen
from entpruner.params.scoring import Scoring
from entpruner.process import Process
from entpruner.process.flow import FlowMatching
from entpruner.scores import ScoreContext
from entpruner.scores.criteria.ld_pruner import sampled_latents
from entpruner.scores.entropy import (
    VARIANCE_FLOOR,
    entropy,
    moments,
    neighbour_variances,
    principal_variances,
    random_subspaces,
    variance,
)
from entpruner.system.randomness import generator

OUTPUTS = ("prediction", "clean image", "samples")
ESTIMATORS = ("scalar", "diagonal", "low_rank", "knn")


class Shape(Frozen):
    """How far N values of K coordinates are from Gaussian. None where nothing varies."""

    kurtosis: float | None
    """The excess kurtosis, the mean over the coordinates that vary. 0 for a Gaussian."""
    negentropy: float | None
    """The negentropy of a coordinate, the mean over those that vary, less that of as many Gaussian draws."""
    pooled_kurtosis: float | None
    """The excess kurtosis of all N * K values together, as the scalar estimator takes them."""
    pooled_negentropy: float | None


class Output(Frozen):
    """One kind of output of the network and of the network without each block: L + 1 variants, the whole one first."""

    draws: int
    shapes: tuple[Shape, ...]
    entropies: dict[str, tuple[float | None, ...]]
    """Estimator -> the entropy of each variant in nats per dimension. None where the draws are too few."""

    def changes(self, estimator: str) -> list[float] | None:
        """CED of every block by an estimator: |entropy without the block - entropy|. None if one is not defined."""
        found = [one for one in self.entropies[estimator] if one is not None]
        if len(found) < len(self.entropies[estimator]):
            return None
        whole, *without = found
        return [abs(one - whole) for one in without]


def measured_output(kind: str, context: ScoreContext, samples: int) -> Output:
    """Measure one of ``OUTPUTS``. ``samples`` images are sampled; the other kinds take the context's draws."""
    variants = gathered(kind, context, samples)
    n, k = variants[0].shape
    random = generator(context.seed, context.artefact, "projections")
    subspaces = random_subspaces(context.settings.projections, k, context.settings.dimensions, random)
    gaussian = torch.randn(n, k, generator=generator(context.seed, context.artefact, "gaussian"), dtype=torch.float64)
    shapes, found = list[Shape](), list[dict[str, float | None]]()
    for x in (variant.double() for variant in variants):
        shapes.append(shape(x.cpu().numpy(), gaussian.numpy()))
        found.append(entropies(x, context.settings, subspaces))
    of_each = {name: tuple(of_one[name] for of_one in found) for name in ESTIMATORS}
    return Output(draws=n, shapes=tuple(shapes), entropies=of_each)


def gathered(kind: str, context: ScoreContext, samples: int) -> list[Tensor]:
    """The outputs of every variant of the network, (N, K) each, of which 4·V·N·K bytes are kept on the device."""
    variants = range(1 + len(context.model.blocks))
    kept: list[list[Tensor]] = [[] for _ in variants]
    for variant, output in streamed(kind, context, samples):
        kept[variant].append(output.flatten(1).to(torch.float32, copy=True))  # a view would keep the variances, too
    return [torch.cat(batches) for batches in kept]


def streamed(kind: str, context: ScoreContext, samples: int) -> Iterator[tuple[int, Tensor]]:
    if kind == "samples":
        settings = context.settings.model_copy(update={"ld_pruner_samples": samples})
        for variant, _, images in sampled_latents(replace(context, settings=settings)):
            yield variant, images
        return
    for variant, batch, prediction in context.removal_predictions():
        clean = kind == "clean image"
        yield variant, implied(context.process, prediction, batch.x_t, batch.t) if clean else prediction


def implied(process: Process, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The clean images that a prediction at x_t implies: all are (B, C, H, W), and t is (B,).

    x_t = α x + σ noise. A diffusion predicts the noise, and a flow predicts α' x + σ' noise. The factors are what the
    process makes of an image of ones without noise, and of noise alone.
    """
    one, none = torch.ones_like(x_t), torch.zeros_like(x_t)
    alpha, sigma = process.add_noise(one, none, t), process.add_noise(none, one, t)
    if not isinstance(process, FlowMatching):
        return (x_t - sigma * prediction) / alpha
    d_alpha, d_sigma = process.velocity(one, none, t), process.velocity(none, one, t)
    return (d_sigma * x_t - sigma * prediction) / (d_sigma * alpha - sigma * d_alpha)


def entropies(x: Tensor, settings: Scoring, subspaces: Tensor) -> dict[str, float | None]:
    """The entropy of samples (N, K) by each estimator, in nats per dimension."""
    variances = {
        "scalar": variance(moments(x, "scalar").sum(0)),
        "diagonal": variance(moments(x, "diagonal").sum(0)),
        "low_rank": principal_variances(x, settings.rank),
        "knn": neighbour_variances(x, subspaces, settings.neighbours),
    }
    found = {name: float(entropy(of_one)) for name, of_one in variances.items()}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


FEWEST = 5
"""Samples in which the spacings of an estimate, over about the square root of their number, fit."""


def shape(x: Floats, gaussian: Floats) -> Shape:
    """How far samples (N, K) are from Gaussian. ``gaussian`` are as many standard normal ones.

    The entropy of a coordinate is estimated from the spacings of its sorted values (Vasicek 1976, scipy's
    ``differential_entropy``). Its bias is that of the Gaussian draws, whose negentropy is 0. Fewer samples than
    ``FEWEST`` have no such estimate.
    """
    varying = x[:, x.var(0) > VARIANCE_FLOOR]
    if not varying.size:
        return Shape(kurtosis=None, negentropy=None, pooled_kurtosis=None, pooled_negentropy=None)
    return Shape(
        kurtosis=float(stats.kurtosis(varying).mean()),
        negentropy=float(negentropy(varying).mean() - negentropy(gaussian).mean()) if len(x) >= FEWEST else None,
        pooled_kurtosis=float(stats.kurtosis(x, axis=None)),
        pooled_negentropy=float(negentropy(x.reshape(-1, 1)).mean() - negentropy(gaussian.reshape(-1, 1)).mean()),
    )


def negentropy(x: Floats) -> Floats:
    """The entropy of a Gaussian with the variance of each column, minus the column's own: (N, K) -> (K,)."""
    return 0.5 * np.log(2 * math.pi * math.e * x.var(0)) - stats.differential_entropy(x, axis=0, method="vasicek")
