"""When and how much is pruned: the grid, the candidates, the vote and its record, whatever the proxies say."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from entpruner.params.arms import Schedule
from entpruner.params.pruning import Pruning, candidate_counts, removal_grid
from entpruner.proxies import NtkResult, ZicoResult
from entpruner.schedule import Candidate, Decision, decide, ranks, vote
from entpruner.system.randomness import generator

ORDER = (3, 0, 5, 1, 4, 2, 7, 6)
Opinion = tuple[float | None, float]  # κ, ZiCo


def results(kappa: float | None, zico: float) -> tuple[NtkResult, ZicoResult]:
    nothing = torch.zeros(0)
    log10 = None if kappa is None else math.log10(kappa)
    return NtkResult(kappa, log10, kappa is None, nothing, nothing), ZicoResult(zico, {})


def never(_: Sequence[tuple[int, ...]]) -> list[tuple[NtkResult, ZicoResult]]:
    raise AssertionError("no proxy should be asked")


def candidates(*opinions: Opinion) -> list[Candidate]:
    """Candidates that remove 0, 1, 2, ... blocks."""
    return [
        Candidate(removed=count, dropped=ORDER[:count], kappa=kappa, rank_deficient=kappa is None, zico=zico)
        for count, (kappa, zico) in enumerate(opinions)
    ]


def stages_of(
    schedule: Schedule, pruning: Pruning, total: int, stages: int, measure: Any = never, seed: int = 0
) -> list[Decision]:
    """All decisions of an arm, each going on from the one before."""
    kept, decisions = tuple(range(len(ORDER))), []
    for stage in range(1, stages + 1):
        decisions.append(decision(schedule, pruning, kept, stage, stages, total, measure, seed))
        kept = tuple(block for block in kept if block not in decisions[-1].dropped)
    return decisions


def decision(
    schedule: Schedule,
    pruning: Pruning,
    kept: Sequence[int],
    stage: int,
    stages: int,
    total: int,
    measure: Any,
    seed: int,
) -> Decision:
    at, random = {"stage": stage, "stages": stages, "total": total}, generator(seed, stage)
    removed = len(ORDER) - len(kept)
    return decide(schedule, pruning, **at, order=ORDER, kept=kept, removed=removed, measure=measure, random=random)


# -------------------------------------------------------------------------------------------------- grid, candidates


@given(total=st.integers(1, 60), stages=st.integers(1, 60))
def test_the_grid_rises_to_the_target_in_even_steps(total: int, stages: int) -> None:
    assume(stages <= total)
    grid = removal_grid(total, stages)
    steps = [after - before for before, after in pairwise(grid)]
    assert (grid[0], grid[-1], len(steps)) == (0, total, stages)
    assert min(steps) >= 1
    assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_delayed_schedule_removes_all_blocks_at_its_stage_and_measures_nothing(at: int) -> None:
    decisions = stages_of("delayed", Pruning(stages=4, at=at), 6, 4)
    assert [len(decision.dropped) for decision in decisions] == [6 if stage == at else 0 for stage in (1, 2, 3, 4)]
    assert decisions[at - 1].dropped == ORDER[:6]
    assert {decision.how for decision in decisions} == {"grid"}


def test_a_stage_behind_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="at 5 lies behind the last of the stages 4"):
        Pruning(stages=4, at=5)


@pytest.mark.parametrize(
    ("removed", "stage", "lookahead", "expected"),
    [
        (0, 1, 1, (0, 2)),
        (0, 1, 2, (0, 2, 3)),
        (2, 3, 2, (2, 3, 5)),
        (3, 2, 2, (3, 5, 6)),  # ahead of the grid
        (5, 3, 9, (5, 6)),  # nothing lies beyond the target
        (6, 2, 2, (6,)),
        (0, 4, 2, (6,)),  # the last stage goes all the way
        (6, 4, 2, (6,)),
    ],
)
def test_candidates_are_stay_and_some_steps_on_and_at_last_the_target(
    removed: int, stage: int, lookahead: int, expected: tuple[int, ...]
) -> None:
    assert candidate_counts((0, 2, 3, 5, 6), removed, stage, lookahead) == expected


# ---------------------------------------------------------------------------------------------------------- the vote


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((3, 1, 2), (3, 1, 2)),
        ((1, 1, 2), (1, 1, 3)),
        ((100.0, 100.00001, 100.1), (1, 1, 3)),
        ((-100.0, -100.00001, -100.1), (2, 2, 1)),
        ((math.inf, 5, math.inf, 1e300), (3, 1, 3, 2)),
    ],
)
def test_ranks_count_those_that_are_better_by_more_than_a_millionth(
    values: Sequence[float], expected: tuple[int, ...]
) -> None:
    assert ranks(values) == expected


def test_the_lowest_sum_of_both_ranks_wins() -> None:
    scored, chosen, tied = vote(candidates((30, 300), (10, 200), (20, 100)), Pruning())
    assert [c.rank_ntk for c in scored] == [3, 1, 2]  # κ: lower is better
    assert [c.rank_zico for c in scored] == [1, 2, 3]  # ZiCo: higher is better
    assert [c.score for c in scored] == [4, 3, 5]
    assert (chosen, tied) == (1, False)


def test_a_rank_deficient_candidate_ranks_behind_any_condition_number() -> None:
    scored, chosen, _ = vote(candidates((None, 100), (1e12, 100)), Pruning())
    assert [c.rank_ntk for c in scored] == [2, 1]
    assert chosen == 1


@pytest.mark.parametrize(("tie", "chosen"), [("more", 1), ("fewer", 0)])
@pytest.mark.parametrize("opinions", [((20, 300), (10, 200)), ((None, 100), (None, 100)), ((10, 100), (10, 100))])
def test_a_tie_is_decided_by_its_rule_and_told(tie: Any, chosen: int, opinions: Sequence[Opinion]) -> None:
    assert vote(candidates(*opinions), Pruning(tie=tie))[1:] == (chosen, True)


@pytest.mark.parametrize(
    ("weights", "chosen"), [({"zico": 0}, 1), ({"ntk": 0}, 0), ({"ntk": 1, "zico": 0.9}, 1), ({"ntk": 0.9}, 0)]
)
def test_the_heavier_proxy_decides_a_disagreement(weights: dict[str, float], chosen: int) -> None:
    opinions = candidates((20, 300), (10, 200))
    assert vote(opinions, Pruning(weights=weights))[1:] == (chosen, False)


# --------------------------------------------------------------------------------------------------------- decisions

OPINION = st.tuples(st.none() | st.floats(1, 1e12), st.floats(-1e3, 1e3))
PRUNING = st.builds(
    Pruning,
    lookahead=st.integers(1, 4),
    tie=st.sampled_from(["more", "fewer"]),
    weights=st.fixed_dictionaries({"ntk": st.floats(0.1, 2), "zico": st.floats(0, 2)}),
)


@given(data=st.data(), pruning=PRUNING, total=st.integers(1, 7), stages=st.integers(1, 7), seed=st.integers(0, 99))
@pytest.mark.parametrize("schedule", ["one_shot", "delayed", "linear", "vote", "random_vote"])
def test_whatever_is_voted_the_target_is_met_in_the_order_of_the_scores(
    schedule: Schedule, data: st.DataObject, pruning: Pruning, total: int, stages: int, seed: int
) -> None:
    assume(stages <= total)
    stages = 1 if schedule == "one_shot" else stages

    def measure(dropped: Sequence[tuple[int, ...]]) -> list[tuple[NtkResult, ZicoResult]]:
        return [results(*data.draw(OPINION)) for _ in dropped]

    decisions = stages_of(schedule, pruning, total, stages, measure if schedule == "vote" else never, seed)
    gone = [block for decision in decisions for block in decision.dropped]
    assert tuple(gone) == ORDER[:total]
    removed = 0
    for decision in decisions:
        assert decision.removed_before == removed
        removed += len(decision.dropped)
        assert decision.removed == removed
        assert removed in decision.grid


def redone(decision: dict[str, Any]) -> tuple[int, bool]:
    """The vote of a decision.json by hand: the candidate's place and whether it shared the best score."""

    def rank(own: float, others: Sequence[float]) -> int:
        return 1 + sum(other < own and not math.isclose(other, own, rel_tol=1e-6) for other in others)

    voted, weights = decision["candidates"], decision["weights"]
    kappas = [math.inf if c["rank_deficient"] else c["kappa"] for c in voted]
    zicos = [-c["zico"] for c in voted]
    scores = []
    for candidate, kappa, zico in zip(voted, kappas, zicos, strict=True):
        assert (candidate["rank_ntk"], candidate["rank_zico"]) == (rank(kappa, kappas), rank(zico, zicos))
        scores.append(weights["ntk"] * candidate["rank_ntk"] + weights["zico"] * candidate["rank_zico"])
        assert candidate["score"] == pytest.approx(scores[-1])
    best = [i for i, score in enumerate(scores) if score == pytest.approx(min(scores), abs=1e-9)]
    return (best[-1] if decision["tie"] == "more" else best[0]), len(best) > 1


@given(opinions=st.lists(OPINION, min_size=3, max_size=3), pruning=PRUNING, kept=st.sampled_from([8, 7, 6]))
def test_a_reader_can_redo_the_vote_from_the_decision_alone(
    opinions: list[Opinion], pruning: Pruning, kept: int
) -> None:
    said = [results(*opinion) for opinion in opinions * 2]
    voted = decision("vote", pruning, sorted(ORDER[-kept:]), 1, 6, 6, lambda dropped: said[: len(dropped)], 0)
    content = json.loads(voted.model_dump_json())
    before = content["removed_before"]
    assert before == len(ORDER) - kept
    for candidate in content["candidates"]:
        assert candidate["dropped"] == content["order"][before : candidate["removed"]]
        assert candidate["removed"] in content["grid"]
    chosen, tied = redone(content)
    assert content["how"] == "vote"
    assert content["tied"] == tied
    assert content["removed"] == content["candidates"][chosen]["removed"]
    assert content["dropped"] == content["candidates"][chosen]["dropped"]


def test_how_it_was_chosen_is_told() -> None:
    further = Pruning(lookahead=2)

    def more_is_better(dropped: Sequence[tuple[int, ...]]) -> list[tuple[NtkResult, ZicoResult]]:
        return [results(10 - len(blocks), float(len(blocks))) for blocks in dropped]

    voted = stages_of("vote", further, 4, 4, more_is_better)
    assert [decision.how for decision in voted] == ["vote", "vote", "only candidate", "forced to the target"]
    assert [decision.removed for decision in voted] == [2, 4, 4, 4]
    assert [decision.how for decision in stages_of("linear", further, 4, 4)] == ["grid"] * 4
    assert [decision.removed for decision in stages_of("linear", further, 4, 4)] == [1, 2, 3, 4]
    drawn = stages_of("random_vote", further, 4, 4)
    assert drawn[0].how == "random"
    assert drawn[-1].how == "forced to the target"


def test_a_random_vote_follows_its_seed_and_reaches_every_candidate() -> None:
    def first_choice(seed: int) -> int:
        return stages_of("random_vote", Pruning(lookahead=2), 6, 3, seed=seed)[0].removed

    choices = [first_choice(seed) for seed in range(20)]
    assert choices == [first_choice(seed) for seed in range(20)]
    assert set(choices) == {0, 2, 4}
