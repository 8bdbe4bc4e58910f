"""Streamed Gaussian entropies are those of the formula, and their errors are honest."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entpruner.scores.entropy import VARIANCE_FLOOR, MomentSums, entropy, jackknife_stderr, moments, variance


def gaussian_entropy(sigma: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * sigma**2)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(sigma=st.floats(1e-3, 1e3), mean=st.floats(-10, 10))
def test_scalar_entropy_is_the_analytic_one(sigma: float, mean: float) -> None:
    x = normal(0, 256, 4, 8, 8)
    x = (x - x.mean()) / x.std(correction=0) * sigma + mean * sigma  # variance exactly sigma²
    assert entropy(variance(moments(x, "scalar").sum(0))).item() == pytest.approx(gaussian_entropy(sigma), abs=1e-9)


def test_diagonal_entropy_averages_the_coordinates() -> None:
    sigma = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    x = normal(0, 20000, 3) * sigma + torch.tensor([3.0, 0.0, -7.0])
    fitted = entropy(variance(moments(x, "diagonal").sum(0))).item()
    analytic = sum(gaussian_entropy(s.item()) for s in sigma) / 3
    assert fitted == pytest.approx(analytic, abs=4 / math.sqrt(2 * 3 * 20000))  # four standard errors


def test_a_constant_coordinate_is_floored() -> None:
    x = torch.cat([normal(0, 50, 1), torch.full((50, 1), 0.25)], dim=1)
    sigma2 = variance(moments(x, "diagonal").sum(0))
    assert (sigma2 < VARIANCE_FLOOR).tolist() == [False, True]
    floor = 0.5 * math.log(2 * math.pi * math.e * VARIANCE_FLOOR)
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


def test_jackknife_of_the_mean_is_the_textbook_error() -> None:
    x = normal(0, 30)
    replicates = (x.sum() - x) / 29
    assert jackknife_stderr(replicates).item() == pytest.approx((x.std() / math.sqrt(30)).item())


def test_jackknife_error_covers_the_scatter_of_the_entropy() -> None:
    x = normal(0, 400, 64, 4)  # 400 repetitions of an experiment of 64 samples
    sums = MomentSums(variants=400, strata=1, groups=16)
    for repetition in range(400):
        sums.add(repetition, torch.zeros(64, dtype=torch.int64), torch.arange(64), moments(x[repetition], "scalar"))
    scatter = entropy(variance(sums.total)).std().item()
    stderr = jackknife_stderr(entropy(variance(sums.without_each_group))[:, 0])
    assert stderr.mean().item() == pytest.approx(scatter, rel=0.15)
