"""Entropies of samples, in nats per dimension, with jackknife standard errors.

Every estimator finds variances σ², and its entropy is the mean of ½ log(2πe σ²) over them:

    scalar     one σ² for all elements of all samples
    diagonal   one σ_j² for each coordinate
    low_rank   the covariance's largest eigenvalues, and one σ² for all other directions (probabilistic PCA)
    knn        one σ_i² for each sample, from the distance to a near neighbour (Kozachenko, Leonenko)

The first two are maximum likelihood (they divide by the count) and ignore correlations. Their moments are summed as
samples stream by. The last two need all samples at once. ``knn`` assumes no Gaussian. It looks at random projections
onto few dimensions, where neighbours are near, and estimates the mean entropy of those projections. With fewer
dimensions than coordinates that is not the joint entropy, which it cannot see.

A variance below ``VARIANCE_FLOOR`` (a constant coordinate, a single sample, a sample that occurs twice) is raised to
it, because its entropy would be -inf. In shapes, V is the number of variants of the network, S of strata (timestep bins
or classes), G of jackknife groups, K of coordinates, N of samples, and P of projections onto D dimensions.
"""

import math

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.special import digamma
from torch import Tensor

VARIANCE_FLOOR = 1e-12  # outputs are of order 1: a spread of one millionth, near float32's resolution


def moments(x: Tensor, estimator: str) -> Tensor:
    """Count, sum and sum of squares of each sample, float64: (B, ...) -> (B, 3, K), with K = 1 for ``scalar``."""
    x = x.flatten(1).double()
    parts = torch.stack([torch.ones_like(x), x, x.square()], dim=1)
    return parts.sum(2, keepdim=True) if estimator == "scalar" else parts


def variance(moments: Tensor) -> Tensor:
    """Variances from summed moments: (..., 3, K) -> (..., K). NaN where nothing was counted."""
    count, total, square = moments.unbind(-2)
    return square / count - (total / count).square()


def entropy(variance: Tensor) -> Tensor:
    """The entropy of Gaussians with these variances, in nats per dimension: (..., K) -> (...)."""
    return 0.5 * torch.log(2 * math.pi * math.e * variance.clamp(min=VARIANCE_FLOOR)).mean(-1)


def principal_variances(x: Tensor, rank: int) -> Tensor:
    """Variances of a Gaussian with ``rank`` free directions, the others sharing one variance: (N, K) -> (K,).

    They are those of maximum likelihood: the covariance's largest eigenvalues, and the mean of the rest (probabilistic
    PCA, Tipping and Bishop 1999). K - 1 or more free directions are the full Gaussian. NaN with fewer than rank + 2
    samples, which leave nothing for the rest. The entropy is biased by about -(rank + 1) / 2N per dimension, which is
    half a free parameter for each sample.
    """
    n, k = x.shape
    rank = min(rank, k - 1)
    if n < rank + 2:
        return x.new_full((k,), math.nan)
    x = x - x.mean(0)
    gram = x @ x.T if n < k else x.T @ x  # both have the same eigenvalues but for zeros
    eigenvalues = torch.linalg.eigvalsh(gram / n).flip(0)  # descending
    rest = eigenvalues[rank:].sum() / (k - rank)
    return torch.cat([eigenvalues[:rank], rest.expand(k - rank)])


def random_subspaces(count: int, k: int, dimensions: int, random: torch.Generator) -> Tensor:
    """Orthonormal bases of uniformly random subspaces of R^K: (P, K, D), float64. D is at most K."""
    gaussian = torch.randn(count, k, min(dimensions, k), generator=random, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q


def neighbour_variances(x: Tensor, subspaces: Tensor, neighbours: int) -> Tensor:
    """Local variances in every projection: (N, K), (P, K, D) -> (P·N,).

    Kozachenko and Leonenko (1987), with the k-th neighbour (Kraskov et al. 2004, eq. 20): in D dimensions
    H = mean log(ε_i^D V_D) + ψ(N) - ψ(k), where ε_i is the distance from sample i to its k-th nearest neighbour and
    V_D the unit ball's volume. σ_i² is the variance of the Gaussian whose entropy is the term of sample i, so that
    samples that coincide (ε_i = 0) meet the same floor as any variance. NaN with fewer than ``neighbours`` + 1 samples.
    """
    n, d = len(x), subspaces.shape[2]
    if n < neighbours + 1:
        return x.new_full((1,), math.nan)
    projected = (x @ subspaces.to(x)).cpu().numpy()  # (P, N, D)
    distances = np.stack([KDTree(points).query(points, [neighbours + 1])[0] for points in projected])  # first: itself
    log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    offset = (log_ball + digamma(n) - digamma(neighbours)) / d
    return torch.from_numpy(distances).flatten().to(x.device).square() * (math.exp(2 * offset - 1) / (2 * math.pi))


class MomentSums:
    """Moments summed by variant, stratum and jackknife group: 24·V·S·G·K bytes, whatever the number of samples."""

    def __init__(self, variants: int, strata: int, groups: int) -> None:
        self.shape = (variants, strata, groups)
        self.sums: Tensor | None = None  # (V, S*G, 3, K), made when the first samples tell K and the device

    def add(self, variant: int, stratum: Tensor, group: Tensor, moments: Tensor) -> None:
        """Add samples of one variant. Their ``stratum`` and ``group``, which counts modulo G, are (B,) int64."""
        variants, strata, groups = self.shape
        if self.sums is None:
            self.sums = moments.new_zeros(variants, strata * groups, *moments.shape[1:])
        self.sums[variant].index_add_(0, stratum * groups + group % groups, moments)

    @property
    def by_group(self) -> Tensor:
        """The sums of every group: (V, S, G, 3, K)."""
        assert self.sums is not None, "no samples were added"
        return self.sums.reshape(*self.shape, *self.sums.shape[2:])

    @property
    def total(self) -> Tensor:
        """The sums of all groups together: (V, S, 3, K)."""
        return self.by_group.sum(2)

    @property
    def without_each_group(self) -> Tensor:
        """For each group the sums of all others: (V, S, G, 3, K)."""
        return self.total.unsqueeze(2) - self.by_group


def jackknife_stderr(replicates: Tensor) -> Tensor:
    """Standard error of a statistic from its values without each of G equal groups: (..., G) -> (...). NaN for G = 1.

    This is the delete-a-group jackknife of a stratified sample with two groups a stratum, 2j and 2j + 1: (G-1)/G
    sqrt(Σ_j (replicate_2j - replicate_2j+1)²). The two have neighbouring times, so times that are stratified over the
    draws count as little as they vary. Images count as drawn from a set without end: over draws from a small set, of
    which each draw takes most images, a statistic varies less than this says.
    """
    groups = replicates.shape[-1]
    if groups == 1:
        return replicates.new_full(replicates.shape[:-1], math.nan)
    apart = replicates[..., 0::2] - replicates[..., 1::2]
    return (groups - 1) / groups * apart.square().sum(-1).sqrt()
