"""The vote taken apart, and how far outputs are from Gaussian, on numbers that are known."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake_runs import ROOT

from entpruner.audit.outputs import Output, entropies, implied, shape
from entpruner.audit.report import chapter_checks as checks
from entpruner.audit.report import chapter_votes
from entpruner.audit.stages import Drawn, Moment, Redrawn, Vote
from entpruner.audit.statistics import Estimate
from entpruner.audit.votes import WITH_TIME, Way, as_cast, cast, counted, prefers_deeper, ways
from entpruner.errors import UserError
from entpruner.params.backbones import Diffusion, Flow
from entpruner.params.files import check
from entpruner.params.proxies import Proxies, Zico
from entpruner.params.pruning import Pruning, VoteWeights
from entpruner.params.scoring import Scoring
from entpruner.process import make_process
from entpruner.rules import RULES
from entpruner.rules.audit import Stages, StagesSettings, all_followed
from entpruner.rules.rule import Job
from entpruner.schedule import Candidate, Decision, vote
from entpruner.scores.entropy import random_subspaces
from entpruner.study.resolved import ResolvedStudy

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def decision(kappas: list[float | None], zicos: list[float], chosen: int, **changed: Any) -> Decision:
    """A vote at stage 2 of 4, of which stage 1 has removed 2 of 8 blocks."""
    grid = (0, 2, 4, 6, 8)
    found = [
        Candidate(removed=n, dropped=tuple(range(n - 2)), kappa=k, zico=z)
        for n, k, z in zip(grid[1:], kappas, zicos, strict=False)
    ]
    given: dict[str, Any] = {
        "schedule": "vote", "stage": 2, "stages": 4, "grid": grid, "order": (), "removed_before": 2,
        "candidates": tuple(found), "weights": {"ntk": 1.0, "zico": 1.0}, "tie": "more", "tied": False, "how": "vote",
        "removed": found[chosen].removed, "dropped": found[chosen].dropped,
    }  # fmt: skip
    return Decision(**given | changed)


# ---------------------------------------------------------------------------------------------------------- votes


kappas = st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0]))


@given(
    st.lists(st.tuples(kappas, st.sampled_from([1.0, 2.0, 3.0])), min_size=2, max_size=4),
    st.sampled_from(WEIGHTS),
    st.sampled_from(["more", "fewer"]),
)
def test_a_vote_counted_as_it_was_cast_ends_as_it_did(proxies: list[Any], ntk: float, tie: Any) -> None:
    pruning = Pruning(weights=VoteWeights(ntk=ntk, zico=1 - ntk), tie=tie)
    candidates = [Candidate(removed=n, dropped=(), kappa=k, zico=z) for n, (k, z) in enumerate(proxies)]
    _, chosen, tied = vote(candidates, pruning)
    found = decision([k for k, _ in proxies], [z for _, z in proxies], 0)
    way = as_cast(found.model_copy(update={"weights": pruning.weights.model_dump(), "tie": tie}), Proxies())
    assert way.choose(*zip(*proxies, strict=True)) == chosen
    assert (way.other_tie.choose(*zip(*proxies, strict=True)) == chosen) != tied
    assert way.other_tie.other_tie.tie == way.tie


def test_below_a_third_for_ntk_the_outcome_is_fixed_if_zico_prefers_the_deeper() -> None:
    fixed = {way.name: way.fixed(3) for way in ways(WEIGHTS)}
    assert fixed == {
        "NTK 0, ZiCo 1": 0,
        "NTK 0.25, ZiCo 0.75": 0,
        "NTK 0.75, ZiCo 0.25": None,
        "NTK 1, ZiCo 0": None,
        "ZiCo as a mean over layers": None,
        "with time, as AutoProg-Zero": None,
    }
    third = Way("", 1, 2)
    assert third.fixed(3) is None and third.other_tie.fixed(3) == 0  # at a third the rule for ties decides
    assert WITH_TIME.fixed(2) == 1  # of two candidates the faster one always wins


def test_what_is_fixed_comes_out_for_every_order_of_ntk() -> None:
    way = Way("", 0.25, 0.75)
    assert {way.choose(order, [3.0, 2.0, 1.0]) for order in permutations([1.0, 2.0, 3.0])} == {0}
    assert way.choose([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == 2  # ZiCo does not always prefer the deeper
    assert prefers_deeper([3.0, 2.0, 1.0]) and not prefers_deeper([3.0, 1.0, 2.0])


def test_the_places_of_stay_and_of_even_steps_are_told_by_the_blocks_that_are_gone() -> None:
    found = decision([3.0, 1.0, 2.0], [3.0, 2.0, 1.0], 1)
    assert (chapter_votes.stay(found), chapter_votes.even(found), cast(found)) == (0, 1, 1)
    assert counted(found, Way("", 1, 1)) == 1
    ahead = found.model_copy(update={"grid": (0, 1, 2, 4, 6, 8), "stage": 1})
    assert chapter_votes.even(ahead) is None  # even steps would have removed 1, and 2 are gone
    said = chapter_votes.of_decisions([found, decision([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], 0)], Way("", 1, 1))
    assert said.startswith("of 2 votes 1 stayed and 1 did what even steps would have done; 0 tied")


def test_shares_are_of_the_draws_on_which_a_candidate_wins() -> None:
    """NTK decides alone: on three draws of four the second candidate has the lower κ."""
    low, high = (Drawn(kappa=k, zico_sum=1.0, zico_mean=-k) for k in (1.0, 2.0))
    one = Vote(
        decision=decision([2.0, 1.0], [1.0, 1.0], 1),
        candidates=(Redrawn(removed=2, draws=(high, high, high, low)), Redrawn(removed=4, draws=(low, low, low, high))),
    )
    way = Way("", 1, 0)
    assert one.choices(way) == [1, 1, 1, 0]
    assert one.choices(Way("", 0, 1, mean=True)) == [1, 1, 1, 0]
    again = chapter_votes.shares(way, [[one], [one]], cast)
    assert again == Estimate(0.75, 0.75, 0.75)
    assert chapter_votes.shares(way, [[one]], chapter_votes.stay) == 0.25  # one seed has no interval
    assert as_cast(one.decision, Proxies(zico=Zico(reduction="mean"))).mean


# --------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("settings", [Diffusion(), Flow(), Flow(interpolant="gvp")], ids=str)
def test_the_clean_image_that_the_truth_implies_is_the_image(settings: Any) -> None:
    process = make_process(settings)
    random = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(6, 1, 4, 4, generator=random, dtype=torch.float64) for _ in range(2))
    t = process.draw_times(6, random, stratified=True)
    x_t = process.add_noise(x, noise, t)
    truth = process.velocity(x, noise, t) if isinstance(settings, Flow) else noise  # type: ignore[attr-defined]
    torch.testing.assert_close(implied(process, truth, x_t, t), x, atol=1e-4, rtol=1e-4)


def test_a_gaussian_has_no_negentropy_and_a_uniform_has_its_own() -> None:
    random = np.random.default_rng(0)
    gaussian, other = random.normal(size=(2, 4000, 3))
    found = shape(2.0 * other + 1.0, gaussian)
    values = (found.kurtosis, found.negentropy, found.pooled_kurtosis, found.pooled_negentropy)
    assert values == pytest.approx((0, 0, 0, 0), abs=0.1) and found.negentropy == pytest.approx(0, abs=0.01)
    uniform = shape(random.uniform(size=(4000, 3)), gaussian)
    assert uniform.kurtosis == pytest.approx(-1.2, abs=0.05)
    assert uniform.negentropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e / 12), abs=0.02)
    assert shape(np.ones((8, 3)), random.normal(size=(8, 3))).negentropy is None
    few = [shape(random.normal(size=(n, 3)), random.normal(size=(n, 3))) for n in (4, 5)]
    assert few[0].negentropy is None and few[1].negentropy is not None and few[0].pooled_negentropy is not None


def test_pooled_coordinates_of_different_scale_are_far_from_gaussian_though_each_is_one() -> None:
    random = np.random.default_rng(0)
    found = shape(random.normal(size=(2000, 2)) * [1.0, 10.0], random.normal(size=(2000, 2)))
    assert found.kurtosis == pytest.approx(0, abs=0.3)
    assert found.pooled_kurtosis is not None and found.pooled_kurtosis > 2
    assert found.pooled_negentropy is not None and found.pooled_negentropy > 0.1 > abs(found.negentropy or 1)


def test_only_the_estimator_without_a_gaussian_sees_that_two_points_are_no_gaussian() -> None:
    random = torch.Generator().manual_seed(0)
    spread = torch.randn(512, 2, generator=random, dtype=torch.float64)
    two = torch.randint(2, (512, 2), generator=random).double() * 2 - 1 + 0.01 * spread
    settings = Scoring(rank=1, projections=2, dimensions=2)
    subspaces = random_subspaces(2, 2, 2, random)
    gaussian, bimodal = (entropies(x, settings, subspaces) for x in (spread / spread.std(), two))
    for name in ("scalar", "diagonal", "low_rank"):
        assert gaussian[name] == pytest.approx(bimodal[name], abs=0.02)
    knn = [found["knn"] for found in (gaussian, bimodal)]
    assert None not in knn and knn[0] > knn[1] + 1  # type: ignore[operator]


def test_a_change_is_that_of_the_network_without_the_block() -> None:
    output = Output(draws=4, shapes=(), entropies={"scalar": (1.0, 0.5, 1.25), "low_rank": (None, None, None)})
    assert output.changes("scalar") == [0.5, 0.25]
    assert output.changes("low_rank") is None
    broken = Output(draws=4, shapes=(), entropies={"scalar": (1.0, None, 1.25)})
    assert broken.changes("scalar") is None  # and not the changes of fewer blocks


# --------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        (Estimate(1.0, 0.9, 1.1), "steady"),
        (Estimate(1.1, 1.05, 1.2), "steady"),
        (Estimate(1.5, 1.2, 1.9), "has risen"),
        (Estimate(0.5, 0.3, 0.9), "has fallen"),
        (Estimate(1.0, 0.5, 2.0), "open"),
        (None, "open"),
    ],
)
def test_a_ratio_is_steady_only_if_its_whole_interval_is(ratio: Estimate | None, word: str) -> None:
    assert checks.steadiness(ratio) == word


def test_costs_have_words_for_their_mean_share() -> None:
    assert [checks.size(shares) for shares in ([0.05, 0.08], [0.05, 0.3], [0.4, 0.9])] == ["small", "moderate", "large"]


def test_moments_are_compared_with_the_last_cut_and_the_start() -> None:
    def moment(after: str, stage: int, distance: float, kappa: float | None = 1.0) -> Moment:
        drawn = (Drawn(kappa=kappa, zico_sum=1.0, zico_mean=math.log(distance)),)
        return Moment(after=after, stage=stage, blocks=4, distance=distance, draws=drawn)

    path = [
        moment("the start", 0, 1), moment("a stage", 1, 2), moment("a cut", 2, 8), moment("a stage", 2, 4),
        moment("a stage", 3, 3), moment("recovery", 3, 2),
    ]  # fmt: skip
    said = {check.question: (check.verdict, check.numbers) for check in checks.along_the_stages("DiT", [path, path])}
    assert said == {
        "NTK's κ through pruning": ("steady", "ratio 1.00 [1.00, 1.00]"),
        "ZiCo after pruning": ("has fallen", "ratio 0.25 [0.25, 0.25]"),
        "while the last stage trains": ("has fallen", "ratio 0.50 [0.50, 0.50]"),
        "after recovery, against the start": ("has risen", "ratio 2.00 [2.00, 2.00]"),
    }
    assert sorted(path, key=checks.order) == path
    lost = [moment("the start", 0, 1), moment("a cut", 1, 1, None), moment("a stage", 1, 1), moment("recovery", 1, 1)]
    assert checks.along_the_stages("DiT", [lost, lost])[0].verdict == "not defined"


# ------------------------------------------------------------------------------------------------ which arm is followed


def study_of(**arm: Any) -> ResolvedStudy:
    """The smoke study, whose one arm of EntPruner is of seed 0, with other keys of this arm."""
    content = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    content["arms"]["entpruner"] |= arm
    del content["figures"]  # one is of what this arm monitors
    return ResolvedStudy(check(content))


def test_the_arm_of_the_audits_ratio_is_followed_with_each_seed_that_it_has() -> None:
    rule = RULES["audit_stages"]
    assert isinstance(rule, Stages)
    assert [arm.key for arm in all_followed(study_of())] == ["entpruner-sit-downstream-r50-s0"]
    assert rule.jobs(study_of(seeds=[1, 2, 7]), "sit") == [1, 2]
    assert all_followed(study_of(ratio=0.75)) == all_followed(study_of(schedule="linear")) == []
    own = {"override": {"proxies": {"ntk": {"samples": 5}}, "finetune": {"optimizer": "sgd", "momentum": 0.9}}}
    settings = rule.settings(study_of(**own), Job("audit_stages", backbone="sit"))
    assert isinstance(settings, StagesSettings) and settings.proxies.ntk.samples == 5
    assert settings.optimizer == "sgd"  # which its training states are of


def test_stages_of_an_arm_that_is_not_there_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^study smoke has no arm of sit on downstream with seed 5[^\n]*$"):
        RULES["audit_stages"].inputs(study_of(), Job("audit_stages", backbone="sit", seed=5))
