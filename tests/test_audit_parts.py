"""The audit's rules on made-up numbers: which regime is taken, what criteria and proxies predict, what is said."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entpruner.audit.confounds import BIT, critical_block, three_ways
from entpruner.audit.criteria import TARGETS, additive, agreements, block_values, chosen, rank_among
from entpruner.audit.regime import choose_regime
from entpruner.audit.report import chapter_confounds as confounds
from entpruner.audit.report import chapter_criteria as criteria
from entpruner.audit.report import chapter_outputs as outputs
from entpruner.audit.report import chapter_proxies as proxies
from entpruner.audit.report import chapter_schedules as schedules
from entpruner.audit.report import chapter_stability as stability
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Chapter, Table, write_report
from entpruner.audit.report.words import Verdict, Wording, verdict
from entpruner.audit.statistics import Estimate, mean_agreement, mean_prediction
from entpruner.audit.subnetworks import Blocks, Measured
from entpruner.params.audit import Regime, RegimeTrials
from entpruner.params.scoring import Scoring
from entpruner.scores import Scores
from entpruner.system.journal import Journal

# -------------------------------------------------------------------------------------------------------- regime

MILD, HARD, HARDEST = (Regime(ratio=ratio, steps=10) for ratio in (0.25, 0.5, 0.75))
TRIALS = RegimeTrials(candidates=(MILD, HARD, HARDEST), masks=4, repeats=2)
MASKS: list[Blocks] = [(0,), (1,), (2,), (3,)]


def test_the_first_regime_in_which_masks_differ_enough_is_taken_and_the_rest_not_tried() -> None:
    def distance(regime: Regime, mask: Blocks, repeat: int) -> float:
        noise = 1 + 0.1 * (-1) ** (repeat + mask[0])
        return noise if regime == MILD else noise * 4.0 ** mask[0]

    found = choose_regime(TRIALS, lambda _: MASKS, distance)
    assert (found.regime, found.size, found.reached) == (HARD, 1, True)
    assert [trial.regime for trial in found.trials] == [MILD, HARD]
    assert found.trials[0].distances[1] == (pytest.approx(0.9), pytest.approx(1.1))
    again = type(found).model_validate(found.model_dump(mode="json") | {"timing": {}})
    assert again == found


def test_where_no_regime_reaches_the_share_the_nearest_is_taken() -> None:
    spread = {MILD: 1.0, HARD: 1.2, HARDEST: 1.1}
    noise = [1.0, 3.0, 2.0, 1.0], [2.0, 1.0, 1.0, 3.0]
    trials = TRIALS.model_copy(update={"share": 0.99})

    def distance(regime: Regime, mask: Blocks, repeat: int) -> float:
        return noise[repeat][mask[0]] * spread[regime] ** mask[0]

    found = choose_regime(trials, lambda _: MASKS, distance)
    assert (found.regime, found.reached, len(found.trials)) == (HARD, False, 3)
    same = choose_regime(trials, lambda _: MASKS, lambda *_: 1.0)
    assert (same.regime, same.reached) == (MILD, False)  # nothing varies in any of them


# ------------------------------------------------------------------------------------------------------- criteria


def of(dropped: Blocks, loss: float, before: float | None = 1.0, after: float = 1.0) -> Measured:
    return Measured(dropped=dropped, repeat=0, loss=loss, distance_before=before, distance=after, seconds=0)


def test_a_set_is_worth_the_sum_of_its_blocks_and_the_lowest_go_first() -> None:
    values = {0: 3.0, 2: -1.0, 5: 3.0, 7: 0.5}
    assert additive(values, [(0,), (2, 7), (0, 5)]).tolist() == [3, -0.5, 6]
    assert chosen(values, 1) == (2,)
    assert chosen(values, 3) == (0, 2, 7)  # 0 before 5, which is worth as much


def test_a_criterion_is_ranked_by_its_value_or_by_what_it_was_before_the_absolute_value() -> None:
    scores = Scores(
        criterion="ced", blocks=(1, 4), value=(2.0, 1.0), signed=(-2.0, 1.0), stderr=(None, None), draws=1, seed=0,
        settings=Scoring(),
    )  # fmt: skip
    entry = {"scores": scores.to_json(), "audited": {"criterion": "ced"}}
    assert block_values(entry) == {1: 2, 4: 1}
    assert block_values(entry | {"audited": {"criterion": "ced", "rank_by": "signed"}}) == {1: -2, 4: 1}


def test_agreements_are_paired_with_the_target_they_name() -> None:
    random = np.random.default_rng(0)
    seeds = []
    for _ in range(3):
        losses = random.permutation(8).astype(float)
        seeds.append([of((block,), losses[block], -losses[block], random.random()) for block in range(8)])
    truth = [{block: record.loss for block, record in enumerate(records)} for records in seeds]
    found = {key: one.value for key, one in agreements({"truth": truth}, seeds, "k").items()}
    assert len(found) == 2 * len(TARGETS)
    assert found["truth", "loss on removal", "ρ"] == found["truth", "loss on removal", "τ"] == pytest.approx(1)
    assert found["truth", "distance before recovery", "τ"] == pytest.approx(-1)
    assert abs(found["truth", "distance after recovery", "ρ"]) < 0.9


def test_an_equal_mask_counts_against_the_criterion() -> None:
    masks = [of((0, block), 0, after=float(block)) for block in range(1, 5)]
    assert [rank_among(distance, masks) for distance in (0.5, 2.0, 9.0)] == [0, 2, 4]


# ----------------------------------------------------------------------------------------------------- confounds


def test_a_score_that_knows_one_block_alone_says_nothing_beyond_it() -> None:
    """Block 0 decides the distance. One score knows this alone, another knows the order of the other blocks too."""
    random = np.random.default_rng(5)
    blocks = [of((block,), 9.0 if block == 0 else 1.0) for block in range(6)]
    worth = np.array([0.0, 1, 2, 3, 4, 5])
    sets, chance, order = [], [], []
    for _ in range(3):
        masks = [tuple(sorted(random.permutation(6)[:3].tolist())) for _ in range(24)]
        sets.append([of(mask, 0, after=100.0 * (0 in mask) + worth[list(mask)].sum()) for mask in masks])
        chance.append(np.array([[10.0 * (0 in mask) + random.random() for mask in masks]]))
        order.append(np.array([[10.0 * (0 in mask) + worth[list(mask)].sum() for mask in masks]]))
    critical = [critical_block(blocks)] * 3
    assert critical == [0, 0, 0]
    found = three_ways({"chance": chance, "order": order}, sets, critical, "k")
    bit, knows = found[BIT].all_sets.estimate(), found["chance"].kept
    assert bit is not None and bit.low > 0.5
    assert knows is not None and abs(knows.value) < 0.4
    whole, kept, beyond = found["order"].all_sets, found["order"].kept, found["order"].beyond
    assert kept is not None and beyond is not None and whole.value == kept.value == pytest.approx(1)
    assert beyond.chance() == pytest.approx(2 / 2001)


def test_without_sets_that_keep_the_block_nothing_is_said_of_them() -> None:
    sets = [[of((0, block), 0, after=float(block)) for block in range(1, 8)]] * 3
    harm = [np.arange(7.0)[None]] * 3
    assert three_ways({"order": harm}, sets, [0, 0, 0], "k")["order"].kept is None


# -------------------------------------------------------------------------------------------------------- proxies


def test_repeats_agree_and_predict_as_their_ranks_do() -> None:
    same, turned = np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])
    assert mean_agreement(same, same, turned) == pytest.approx((1 - 1 - 1) / 3)
    assert mean_prediction(same, same, turned) == pytest.approx(0)
    chains = np.array([[1.0, 2, 3], [10, 20, 30]])
    assert proxies.within(mean_prediction)(chains, chains[::-1]) == pytest.approx(1)
    assert proxies.across(mean_prediction)(chains, chains[::-1]) < 0
    assert proxies.deeper_is_higher(np.array([3.0, 1.0, 2.0])).tolist() == [True, True, False]


def test_a_kappa_that_does_not_exist_ranks_last() -> None:
    records = [{"log10_kappa": [[0, 0], [kappa, 1.0]]} for kappa in (2.0, None, 1.0)]
    proxy = proxies.Proxy("κ", -1, "log10_kappa", setting=1)
    assert proxy.repeats(records).tolist() == [[2, np.inf, 1], [1, 1, 1]]
    assert proxy.repeats([records, records]).shape == (2, 2, 3)


# ---------------------------------------------------------------------------------------------------------- words

WORDING = Wording("UP", "DOWN", "NOTHING", undefined="NONE")
OPEN = "Cannot be told apart from NOTHING"
numbers = st.floats(-5, 5)


@given(st.tuples(numbers, numbers, numbers), numbers)
def test_nothing_is_said_that_the_interval_does_not_bear_out(three: tuple[float, float, float], null: float) -> None:
    low, value, high = sorted(three)
    estimate = Estimate(value, low, high)
    said = replace(WORDING, null=null).of({"it": estimate})
    assert said.startswith({"above": "UP", "below": "DOWN", "open": OPEN}[verdict(estimate, null)])
    assert said.startswith(OPEN) == (low <= null <= high)
    assert not said.startswith("UP") or low > null
    assert not said.startswith("DOWN") or high < null


def test_each_thing_is_named_once_under_its_verdict_with_its_interval() -> None:
    found = {"a": Estimate(0.5, 0.2, 0.8), "b": Estimate(0.7, 0.1, 0.9), "c": Estimate(0.1, -0.2, 0.3), "d": None}
    said = f"UP: b 0.70 [0.10, 0.90] and a 0.50 [0.20, 0.80]. {OPEN}: c 0.10 [-0.20, 0.30]. NONE: d."
    assert WORDING.of(found) == said
    assert Wording("loses to", "beats", subject="it").of({"c": found["c"], "a": found["a"]}) == (
        "it loses to: a 0.50 [0.20, 0.80]. it cannot be told apart from: c 0.10 [-0.20, 0.30]."
    )


def test_an_open_question_is_never_put_as_an_answer() -> None:
    chapters = (criteria, proxies, confounds, schedules, stability, outputs)
    found = {one for chapter in chapters for one in vars(chapter).values() if isinstance(one, Wording)}
    wordings = sorted(found, key=str)
    assert len(wordings) == 12
    for wording in wordings:
        assert "annot be told apart" in wording.predicate("open")
        assert not any(word in wording.predicate("open") for word in ("better", "worse", "goes", "nearer", "further"))
        assert len({wording.predicate(kind) for kind in get_args(Verdict)}) == 4


# ----------------------------------------------------------------------------------------------------- page, figure


def test_a_table_shows_intervals_and_its_csv_has_them_in_full(tmp_path: Path) -> None:
    table = Table("t", "T", {"name": "", "ρ": ".2f", "n": "d"}, [["a", Estimate(1 / 3, 0, 1), 3], ["b", None, 4]])
    assert table.markdown().splitlines()[2:] == ["| a | 0.33 [0.00, 1.00] | 3 |", "| b | – | 4 |"]
    table.write_csv(tmp_path)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines == ["name,ρ,ρ low,ρ high,n", f"a,{1 / 3!r},0,1,3", "b,,,,4"]


def test_a_chapter_is_written_with_its_files_beside_the_page(tmp_path: Path) -> None:
    panels = {"left": {"a": {"dit": Estimate(0.5, 0.1, 0.8), "sit": None}}, "right": {"a": {}}}
    table = Table("t", "Numbers", {"x": "d"}, [[1]])
    figures = {"f": ("Picture", lambda target: forest(panels, "ρ", target))}
    chapter = Chapter("Title", "How.", ["Found."], [table], figures, short=["Found it."])
    write_report(tmp_path / "README.md", "# Page", "## End", ["# Detail", "## The regime"], [chapter, chapter])
    page, detail = ((tmp_path / name).read_text() for name in ("README.md", "detail.md"))
    sections = [f"## {number}. Title\n\n- Found it.\n\n![Picture](f.png)" for number in (1, 2)]
    assert page == "\n\n".join(["# Page", *sections, "## End"]) + "\n"
    start = "# Detail\n\n## The regime\n\n## 1. Title\n\nHow.\n\n- Found.\n\n![Picture](f.png)\n\n**Numbers**"
    assert detail.startswith(f"{start} ([CSV](t.csv))") and "## 2. Title" in detail
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "detail.md", "f.png", "f.svg", "t.csv"]


# -------------------------------------------------------------------------------------------------------- journal


def test_a_journal_reads_back_what_is_whole_and_knows_no_other_fingerprint(tmp_path: Path) -> None:
    done: list[str] = []

    def job(name: str) -> dict[str, float]:
        done.append(name)
        return {"x": 0.1}

    first = Journal(tmp_path / "j", "a" * 64)
    assert first.record("one", lambda: job("one")) == {"x": 0.1}
    first.file.write_bytes(first.file.read_bytes() + b'{"name": "two", "rec')
    again = Journal(tmp_path / "j", "a" * 64)
    assert again.record("one", lambda: job("one")) == {"x": 0.1}
    again.record("two", lambda: job("two"))
    assert done == ["one", "two"]
    assert Journal(tmp_path / "j", "a" * 64).done.keys() == {"one", "two"}
    assert not Journal(tmp_path / "j", "b" * 64).done
    again.discard()
    assert list(tmp_path.iterdir()) == []
