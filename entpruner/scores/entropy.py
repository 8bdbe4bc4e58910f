"""Entropies of Gaussians fitted to a stream of samples, in nats per dimension, with jackknife standard errors.

The fit is by maximum likelihood (a variance divides by the count), so H = ½ log(2πe σ²) with

    scalar     one σ² for all elements of all samples
    diagonal   one σ_j² a coordinate, H averaged over the coordinates

Both ignore correlations. A variance below ``VARIANCE_FLOOR`` (a constant coordinate, a single sample) is raised to it,
because its entropy would be -inf. Letters: V variants of the network, S strata (timestep bins, classes), G jackknife
groups, K coordinates whose moments are kept apart.
"""

import math

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-12  # outputs are of order 1: a spread of one millionth, near float32's resolution
GROUPS = 16  # of the jackknife


def moments(x: Tensor, estimator: str) -> Tensor:
    """Count, sum and sum of squares of each sample, float64: (B, ...) -> (B, 3, K), with K = 1 for ``scalar``."""
    x = x.flatten(1).double()
    parts = torch.stack([torch.ones_like(x), x, x.square()], dim=1)
    return parts.sum(2, keepdim=True) if estimator == "scalar" else parts


def variance(moments: Tensor) -> Tensor:
    """(..., 3, K) -> (..., K); NaN where nothing was counted."""
    count, total, square = moments.unbind(-2)
    return square / count - (total / count).square()


def entropy(variance: Tensor) -> Tensor:
    """Nats per dimension of the Gaussian with these variances: (..., K) -> (...)."""
    return 0.5 * torch.log(2 * math.pi * math.e * variance.clamp(min=VARIANCE_FLOOR)).mean(-1)


class MomentSums:
    """Moments summed by variant, stratum and jackknife group: 24·V·S·G·K bytes, whatever the number of samples."""

    def __init__(self, variants: int, strata: int, groups: int) -> None:
        self.shape = (variants, strata, groups)
        self.sums: Tensor | None = None  # (V, S*G, 3, K), made when the first samples tell K and the device

    def add(self, variant: int, stratum: Tensor, index: Tensor, moments: Tensor) -> None:
        """Samples of one variant: ``stratum`` and ``index`` (the sample's number, which gives its group) are (B,)."""
        variants, strata, groups = self.shape
        if self.sums is None:
            self.sums = moments.new_zeros(variants, strata * groups, *moments.shape[1:])
        self.sums[variant].index_add_(0, stratum * groups + index % groups, moments)

    @property
    def by_group(self) -> Tensor:
        """(V, S, G, 3, K)."""
        assert self.sums is not None, "no samples were added"
        return self.sums.reshape(*self.shape, *self.sums.shape[2:])

    @property
    def total(self) -> Tensor:
        """All groups together: (V, S, 3, K)."""
        return self.by_group.sum(2)

    @property
    def without_each_group(self) -> Tensor:
        """All groups but one, for each group: (V, S, G, 3, K)."""
        return self.total.unsqueeze(2) - self.by_group


def jackknife_stderr(replicates: Tensor) -> Tensor:
    """Standard error of a statistic from its values without each of G equal groups: (..., G) -> (...).

    Delete-a-group jackknife: sqrt((G-1)/G Σ (replicate - mean)²). The groups cut across the strata of t, so what
    stratification saves is not credited: the error is on the safe side.
    """
    groups = replicates.shape[-1]
    deviation = replicates - replicates.mean(-1, keepdim=True)
    return ((groups - 1) / groups * deviation.square().sum(-1)).sqrt()
