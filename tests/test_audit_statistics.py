"""Rank correlations and their intervals: against SciPy, on cases with a known answer, and what the intervals cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from entpruner.audit.statistics import (
    Bootstrapped,
    Estimate,
    Floats,
    Resamples,
    bootstrap,
    chance_of_ranks,
    consistency,
    holm,
    kendall,
    mean_over_seeds,
    proportion,
    spearman,
    told_apart,
)
from entpruner.evaluation.intervals import CORRELATION, POSITIVE, SHARE

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12)


@given(pairs)
def test_rank_correlations_are_scipys_ties_and_all(values: list[tuple[int, int]]) -> None:
    x, y = np.array(values, float).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y)) and np.isnan(kendall(x, y))
    else:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
        assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_rank_correlations_take_many_resamples_at_once_and_infinity_as_the_largest() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 4, 5, 8))
    for statistic in (spearman, kendall):
        assert statistic(x, y)[2, 3] == pytest.approx(float(statistic(x[2, 3], y[2, 3])))
        largest = np.where(x == x.max(-1, keepdims=True), np.inf, x)
        np.testing.assert_array_equal(statistic(largest, y), statistic(x, y))


def seeds(random: np.random.Generator, count: int, n: int, rho: float) -> list[tuple[Floats, ...]]:
    """A pair of normal variables with this correlation, for each seed."""
    x, noise = random.standard_normal((2, count, n))
    return list(zip(x, rho * x + np.sqrt(1 - rho**2) * noise, strict=True))


def test_the_bootstrap_is_seeded_and_centres_on_the_mean_over_seeds() -> None:
    groups = seeds(np.random.default_rng(1), 3, 12, 0.5)
    result = bootstrap(groups, spearman, Resamples.draw([12] * 3, "a"))
    assert result.value == pytest.approx(np.mean([stats.spearmanr(*pair).statistic for pair in groups]))
    again = bootstrap(groups, spearman, Resamples.draw([12] * 3, "a"))
    other = bootstrap(groups, spearman, Resamples.draw([12] * 3, "b"))
    assert result.estimate() == again.estimate() != other.estimate()
    estimate = result.estimate()
    assert estimate is not None and estimate.low < estimate.value < estimate.high


def test_the_bootstrap_draws_seeds_and_the_units_in_them() -> None:
    def mean(values: Floats) -> Floats:
        return values.mean(-1)

    resamples = Resamples.draw([50] * 4, 0, count=4000)
    within = [(row,) for row in np.random.default_rng(0).standard_normal((4, 50))]
    within = [(row - row.mean(),) for (row,) in within]  # seeds alike: only the units scatter
    spread = bootstrap(within, mean, resamples).replicates.std()
    assert spread == pytest.approx(np.sqrt(np.mean([row.var() for (row,) in within]) / 50 / 4), rel=0.05)
    between = [(np.full(50, value),) for value in (0.0, 1.0, 2.0, 3.0)]  # units alike: only the seeds scatter
    assert bootstrap(between, mean, resamples).replicates.std() == pytest.approx(np.std([0, 1, 2, 3]) / 2, rel=0.05)


def test_a_paired_difference_is_taken_resample_by_resample() -> None:
    groups = seeds(np.random.default_rng(2), 3, 30, 0.9)
    resamples = Resamples.draw([30] * 3, 0)
    result = bootstrap(groups, spearman, resamples)
    assert (result - result).estimate() == Estimate(0, 0, 0)
    worse = bootstrap([(x[::-1], y) for x, y in groups], spearman, resamples)
    difference = (result - worse).estimate()
    assert difference is not None and difference.excludes(0)


def test_what_does_not_vary_has_no_correlation() -> None:
    constant = [(np.ones(6), np.arange(6.0))] * 3
    assert bootstrap(constant, spearman, Resamples.draw([6] * 3, 0)).estimate() is None


@pytest.mark.parametrize(("n", "rho"), [(12, 0.0), (12, 0.85), (30, 0.5)])
def test_the_interval_covers_at_least_what_it_says_where_seeds_are_alike(n: int, rho: float) -> None:
    random, resamples = np.random.default_rng(3), Resamples.draw([n] * 3, 0, count=400)
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's ρ of a normal pair
    found = [bootstrap(seeds(random, 3, n, rho), spearman, resamples).estimate() for _ in range(150)]
    covered = np.mean([estimate is not None and not estimate.excludes(truth) for estimate in found])
    assert covered >= 0.93
    assert np.mean([estimate is not None and estimate.high - estimate.low for estimate in found]) < 1


def test_the_t_interval_of_three_seeds() -> None:
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found is not None and found.value == 2
    assert found.high - 2 == 2 - found.low == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert mean_over_seeds([1.0]) is None


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        (CORRELATION, (0.98, 0.95, 1.0)), (CORRELATION, (0.53, 0.1, 0.9)), (CORRELATION, (-0.99, -0.4, -0.9)),
        (SHARE, (1.0, 1.0, 0.998)), (SHARE, (0.0, 0.0, 0.4)), (POSITIVE, (4.0, 1.0, 0.1)),
        ((1.0, 5.0), (4.9, 5.0, 4.99)), ((-math.inf, 100.0), (99.0, 90.0, 40.0)),
    ],
)  # fmt: skip
def test_an_interval_stays_within_the_bounds_of_its_quantity(
    bounds: tuple[float, float], values: tuple[float, ...]
) -> None:
    plain, found = mean_over_seeds(values), mean_over_seeds(values, bounds)
    assert plain is not None and found is not None
    assert not bounds[0] <= plain.low <= plain.high <= bounds[1]  # Student's own reaches beyond
    assert bounds[0] <= found.low < found.value < found.high <= bounds[1]
    assert found.value == plain.value


def test_an_interval_on_a_scale_is_that_of_the_logarithm_and_of_fishers_z() -> None:
    near, plain = mean_over_seeds([10.0, 10.01, 9.99], POSITIVE), mean_over_seeds([10.0, 10.01, 9.99])
    assert near is not None and plain is not None
    assert near.low == pytest.approx(plain.low, rel=1e-5)  # far from the bounds they are the same
    values, half = (0.5, 0.6, 0.7), 4.302653 * 0.1 / math.sqrt(3)
    found = mean_over_seeds(values, CORRELATION)
    assert found is not None
    assert found.low == pytest.approx(math.tanh(math.atanh(0.6) - half / (1 - 0.36)), rel=1e-6)
    assert mean_over_seeds([1.0, 1.0, 1.0], CORRELATION) == Estimate(1.0, 1.0, 1.0)


def test_p_values_are_corrected_for_their_family() -> None:
    assert holm({"a": 0.01, "b": None, "c": 0.04, "d": 0.03}) == {
        "a": pytest.approx(0.03), "b": None, "c": pytest.approx(0.06), "d": pytest.approx(0.06),
    }  # fmt: skip
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_the_chance_of_a_difference_and_the_smallest_that_would_be_seen() -> None:
    random = np.random.default_rng(4)
    for mean, told in ((0.0, False), (1.0, True)):
        one = Bootstrapped(mean, mean + 0.2 * random.normal(size=2000))
        assert one.chance() is not None
        assert (told_apart({"it": one}) == ["it"]) == told
    assert one.chance() == pytest.approx(2 / 2001)
    assert one.detectable() == pytest.approx(0.2 * (1.96 + 0.8416), rel=0.05)
    assert Bootstrapped(math.nan, np.array([math.nan])).chance() is None


def test_an_exact_interval_of_a_share() -> None:
    assert proportion(0, 10) == Estimate(0, 0, pytest.approx(0.3085, abs=1e-4))
    assert proportion(18, 18).low == pytest.approx(0.025 ** (1 / 18))
    assert proportion(18, 18).high == 1


def test_the_subjects_share_of_the_variance() -> None:
    random = np.random.default_rng(4)
    true = random.standard_normal((2000, 1)) * 2  # variance 4, noise 1: a share of 0.8
    repeats = np.array([0.0, 7.0, -3.0])  # a repeat's own luck does not count
    found = consistency(true + repeats + random.standard_normal((2000, 3)))
    assert found is not None and found.value == pytest.approx(0.8, abs=0.02)
    assert not found.excludes(0.8) and found.high - found.low < 0.05
    assert consistency(np.ones((4, 2))) is None
    same = consistency(np.arange(4.0)[:, None] + np.zeros((4, 2)))
    assert same is not None and same.value == 1


def test_the_interval_of_the_share_covers_it() -> None:
    random = np.random.default_rng(5)
    found = [consistency(random.standard_normal((8, 1)) + random.standard_normal((8, 2))) for _ in range(1000)]
    covered = np.mean([estimate is not None and not estimate.excludes(0.5) for estimate in found])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_the_chance_of_ranks() -> None:
    assert chance_of_ranks([0], [30]) == pytest.approx(1 / 31)
    assert chance_of_ranks([1, 0], [2, 1]) == pytest.approx(3 / 6)  # (0,0), (0,1), (1,0)
    assert chance_of_ranks([30, 30, 30], [30, 30, 30]) == 1
    assert chance_of_ranks([15, 15], [30, 30]) == pytest.approx(0.5, abs=0.02)
