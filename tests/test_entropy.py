"""Entropies are those of the formula, or of the distribution that was sampled, and their errors are honest."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from scoring_context import gaussian_entropy
from torch import Tensor

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


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_det_entropy(covariance: Tensor) -> float:
    """Of a Gaussian, in nats per dimension."""
    return (0.5 * torch.logdet(2 * math.pi * math.e * covariance) / len(covariance)).item()


def rotation(seed: int, k: int) -> Tensor:
    return torch.linalg.qr(normal(seed, k, k)).Q


def subspaces(k: int, dimensions: int, count: int = 8) -> Tensor:
    return random_subspaces(count, k, dimensions, torch.Generator().manual_seed(0))


def of_moments(x: Tensor, estimator: str) -> Tensor:
    return variance(moments(x, estimator).sum(0))


def knn(k: int, dimensions: int, neighbours: int = 8) -> Callable[[Tensor], Tensor]:
    return partial(neighbour_variances, subspaces=subspaces(k, dimensions), neighbours=neighbours)


def low_rank(rank: int) -> Callable[[Tensor], Tensor]:
    return partial(principal_variances, rank=rank)


@given(sigma=st.floats(1e-3, 1e3), mean=st.floats(-10, 10))
def test_scalar_entropy_is_the_analytic_one(sigma: float, mean: float) -> None:
    x = normal(0, 256, 4, 8, 8)
    x = (x - x.mean()) / x.std(correction=0) * sigma + mean * sigma  # variance exactly sigma²
    assert entropy(of_moments(x, "scalar")).item() == pytest.approx(gaussian_entropy(sigma), abs=1e-9)


def test_diagonal_entropy_averages_the_coordinates() -> None:
    sigma = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    x = normal(0, 20000, 3) * sigma + torch.tensor([3.0, 0.0, -7.0])
    analytic = sum(gaussian_entropy(s.item()) for s in sigma) / 3
    four_errors = 4 / math.sqrt(2 * 3 * 20000)
    assert entropy(of_moments(x, "diagonal")).item() == pytest.approx(analytic, abs=four_errors)


def test_a_constant_coordinate_is_floored() -> None:
    sigma2 = of_moments(torch.cat([normal(0, 50, 1), torch.full((50, 1), 0.25)], dim=1), "diagonal")
    assert (sigma2 < VARIANCE_FLOOR).tolist() == [False, True]
    floor = gaussian_entropy(VARIANCE_FLOOR**0.5)
    assert entropy(sigma2).item() == pytest.approx((entropy(sigma2[:1]).item() + floor) / 2)


@pytest.mark.parametrize("estimator", ["scalar", "diagonal"])
def test_sums_by_stratum_and_group_select_the_right_samples(estimator: str) -> None:
    x, stratum, index = normal(0, 60, 5), torch.arange(60) // 20, torch.randperm(60)
    sums = MomentSums(variants=2, strata=4, groups=3)
    for part in torch.split(torch.arange(60), 7):
        sums.add(1, stratum[part], index[part], moments(x[part], estimator))
    total = variance(sums.total)[1]
    left_out = variance(sums.without_each_group)[1]
    for s in range(3):
        dim = None if estimator == "scalar" else 0
        assert torch.allclose(total[s], x[stratum == s].var(dim, correction=0))
        for g in range(3):
            assert torch.allclose(left_out[s, g], x[(stratum == s) & (index % 3 != g)].var(dim, correction=0))
    assert total[3].isnan().all()  # no sample fell in there


# ----------------------------------------------------------------------------------------- against known distributions


@pytest.mark.parametrize("k", [2, 8, 64, 256])
@pytest.mark.parametrize("estimator", ["scalar", "diagonal", "low_rank", "full", "knn"])
def test_entropies_of_gaussians_are_within_two_percent_at_4096_samples(estimator: str, k: int) -> None:
    """Each on the widest family of Gaussians that it claims; entropies per dimension are 1.4 to 2.3 nats."""
    scale = {
        "scalar": torch.full((k,), 1.5),
        "low_rank": torch.cat([torch.linspace(6, 2, min(8, k - 1)), torch.ones(k - min(8, k - 1))]),
    }.get(estimator, torch.linspace(1, 4, k)).double()
    axes = torch.eye(k, dtype=torch.float64) if estimator == "diagonal" else rotation(1, k)
    x = normal(2, 4096, k) * scale @ axes.T + 3 * normal(3, k)
    if estimator == "scalar":
        x = x - x.mean(0)  # one mean for all coordinates is part of the model
    covariance = axes * scale.square() @ axes.T
    analytic = log_det_entropy(covariance)
    if estimator == "knn":  # entropies of the projections, which are Gaussian too
        planes = subspaces(k, 4)
        analytic = np.mean([log_det_entropy(basis.T @ covariance @ basis) for basis in planes])
    fits = {"low_rank": low_rank(8), "full": low_rank(k), "knn": knn(k, 4)}
    fit = fits.get(estimator, partial(of_moments, estimator=estimator))
    error = entropy(fit(x)).item() - analytic
    assert abs(error) < 0.02 * analytic
    assert abs(error) < 0.03  # nats per dimension


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_knn_entropy_of_a_laplace_distribution_is_within_five_percent(k: int) -> None:
    x = torch.from_numpy(np.random.default_rng(0).laplace(scale=1.5, size=(4096, k)))
    assert entropy(knn(k, k)(x)).item() == pytest.approx(1 + math.log(2 * 1.5), rel=0.05)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_knn_entropy_of_two_modes_is_within_five_percent_where_a_gaussian_is_not(k: int) -> None:
    """Two Gaussians of unit variance, 16 apart along the diagonal."""
    side = torch.where(torch.rand(4096, generator=torch.Generator().manual_seed(0)) < 0.3, -8.0, 8.0).double()
    x = normal(1, 4096, k) + side[:, None] / math.sqrt(k)

    def integrand(z: float) -> float:
        density = 0.3 * norm.pdf(z, -8) + 0.7 * norm.pdf(z, 8)
        return -density * math.log(density)

    along = quad(integrand, -20, 20, points=[-8, 8], limit=200)[0]
    analytic = (along + (k - 1) * gaussian_entropy(1)) / k
    assert entropy(knn(k, k)(x)).item() == pytest.approx(analytic, rel=0.05)
    if k <= 4:  # one direction of eight that is not Gaussian weighs little
        assert entropy(principal_variances(x, rank=k)).item() > 1.1 * analytic


# ----------------------------------------------------------------------------------- what holds for any set of samples


@pytest.mark.parametrize(("fit", "n"), [(low_rank(2), 40), (low_rank(2), 5), (knn(6, 3), 40)])  # 5 < 6 coordinates
@given(shift=st.floats(-100, 100), log_scale=st.floats(-3, 3), seed=st.integers(0, 100))
def test_a_shift_changes_no_entropy_and_a_scale_adds_its_logarithm(
    fit: Callable[[Tensor], Tensor], n: int, shift: float, log_scale: float, seed: int
) -> None:
    x = normal(seed, n, 6)
    moved = entropy(fit(math.exp(log_scale) * x + shift))
    assert moved.item() == pytest.approx(entropy(fit(x)).item() + log_scale, abs=1e-9)


@pytest.mark.parametrize("fit", [low_rank(2), knn(6, 6)], ids=["low_rank", "knn"])
@given(seed=st.integers(0, 100))
def test_a_rotation_changes_no_entropy(fit: Callable[[Tensor], Tensor], seed: int) -> None:
    x = normal(seed, 40, 6) * torch.arange(1, 7)
    assert entropy(fit(x @ rotation(seed, 6))).item() == pytest.approx(entropy(fit(x)).item(), abs=1e-9)


@pytest.mark.parametrize("n, k", [(50, 6), (10, 12)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_low_rank_entropy_is_the_mean_surprise_of_the_samples_under_the_fit(n: int, k: int, rank: int) -> None:
    x = normal(0, n, k) @ normal(1, k, k)
    x = x - x.mean(0)
    variances, axes = principal_variances(x, rank), torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)
    fitted = torch.distributions.MultivariateNormal(x.new_zeros(k), axes * variances @ axes.T)
    assert entropy(variances).item() == pytest.approx(-fitted.log_prob(x).mean().item() / k)
    assert len(variances[:rank].unique()) == rank and len(variances[rank:].unique()) == 1


def test_a_higher_rank_fits_better_up_to_the_full_covariance() -> None:
    x = normal(0, 50, 6) @ normal(1, 6, 6)
    entropies = [entropy(principal_variances(x, rank)).item() for rank in range(1, 8)]
    assert entropies[:5] == sorted(entropies[:5], reverse=True)
    assert entropies[4:] == pytest.approx([log_det_entropy(torch.cov(x.T, correction=0))] * 3)


@pytest.mark.parametrize("neighbours", [1, 4])
def test_knn_entropy_is_the_published_formula(neighbours: int) -> None:
    x, bases = normal(0, 30, 5), subspaces(5, 2)
    terms = []
    for basis in bases:
        distance = torch.cdist(x @ basis, x @ basis).sort().values[:, neighbours]  # the first is the sample itself
        area = math.pi * distance.square()
        # ψ(n) - ψ(k) = 1/k + ... + 1/(n-1)
        terms.append((area.log().mean().item() + sum(1 / j for j in range(neighbours, 30))) / 2)
    ours = entropy(neighbour_variances(x, bases, neighbours)).item()
    assert ours == pytest.approx(sum(terms) / len(terms), abs=1e-6)  # cdist rounds


def test_random_subspaces_are_orthonormal_and_no_larger_than_the_space() -> None:
    bases = subspaces(6, 3)
    assert torch.allclose(bases.mT @ bases, torch.eye(3, dtype=torch.float64).expand(8, 3, 3))
    assert torch.equal(bases, subspaces(6, 3))
    assert subspaces(2, 4).shape == (8, 2, 2)


def test_samples_that_coincide_are_floored() -> None:
    x = torch.cat([normal(0, 50, 6), normal(1, 1, 6).expand(4, 6)])
    local = neighbour_variances(x, subspaces(6, 3), neighbours=3)
    assert (local < VARIANCE_FLOOR).sum() == 8 * 4  # in each projection, the four
    assert entropy(local).isfinite()
    flat = torch.cat([normal(0, 50, 2), torch.zeros(50, 4)], dim=1) @ rotation(0, 6)
    assert (principal_variances(flat, rank=2) < VARIANCE_FLOOR).tolist() == [False, False] + [True] * 4
    assert entropy(principal_variances(flat, rank=2)).isfinite()


def test_too_few_samples_have_no_entropy() -> None:
    for fit in (low_rank(2), knn(6, 3, neighbours=3)):
        assert entropy(fit(normal(0, 4, 6))).isfinite()
        assert entropy(fit(normal(0, 3, 6))).isnan()
        assert entropy(fit(normal(0, 0, 6))).isnan()


# ------------------------------------------------------------------------------------------------------ standard errors


def test_jackknife_of_the_mean_is_the_textbook_error_of_two_draws_a_stratum() -> None:
    """In a stratified sample of n, two a stratum, the variance of the mean is estimated by Σ (x_1 - x_2)² / n²."""
    x = normal(0, 30) + torch.arange(30) // 2  # the strata's means count for nothing
    replicates = (x.sum() - x) / 29
    assert jackknife_stderr(replicates).item() == pytest.approx(((x[0::2] - x[1::2]).norm() / 30).item())


def test_what_is_one_group_has_no_error() -> None:
    assert jackknife_stderr(normal(0, 2, 1)).isnan().tolist() == [True, True]


def test_jackknife_error_covers_the_scatter_of_the_entropy() -> None:
    x = normal(0, 400, 64, 4)  # 400 repetitions of an experiment of 64 samples
    sums = MomentSums(variants=400, strata=1, groups=16)
    for repetition in range(400):
        sums.add(repetition, torch.zeros(64, dtype=torch.int64), torch.arange(64), moments(x[repetition], "scalar"))
    scatter = entropy(variance(sums.total)).std().item()
    stderr = jackknife_stderr(entropy(variance(sums.without_each_group))[:, 0])
    assert stderr.mean().item() == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize("fit", [low_rank(2), knn(8, 2)], ids=["low_rank", "knn"])
def test_jackknife_error_covers_the_scatter_of_a_change(fit: Callable[[Tensor], Tensor]) -> None:
    """The change that a map with noise makes, on 100 sets of 64 samples that are not Gaussian."""
    x = normal(0, 100, 64, 8).sinh()
    y = x @ normal(1, 8, 8) / 3 + normal(2, 100, 64, 8)

    def change(x: Tensor, y: Tensor) -> Tensor:
        return entropy(fit(y)) - entropy(fit(x))

    scatter = torch.stack([change(*pair) for pair in zip(x, y, strict=True)]).std().item()
    kept = torch.arange(64) % 16 != torch.arange(16)[:, None]
    replicates = [[change(a[part], b[part]) for part in kept] for a, b in zip(x[:40], y[:40], strict=True)]
    assert jackknife_stderr(torch.tensor(replicates)).mean().item() == pytest.approx(scatter, rel=0.3)
