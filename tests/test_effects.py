"""The effects of criterion and schedule on made-up distances: pairing, means, what is told apart, and the files."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entpruner.audit.effects import Cell, Effect, cells, corrected, effects
from entpruner.cli import main
from entpruner.layout import Layout
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import write_json

SEEDS = 0, 1, 2, 3, 4
BAD, LATE = 1.5, 0.8
"""What another criterion multiplies the distance by, and what another schedule does."""


def arm(criterion: str, schedule: str, seed: int, name: str = "", backbone: str = "dit") -> ArmIdentity:
    return ArmIdentity.model_validate(
        {
            "name": name or f"{criterion}_{schedule}", "label": "x", "backbone": backbone, "process": "diffusion",
            "data": "d", "schedule": schedule, "criterion": criterion, "ratio": 0.5, "seed": seed, "depth": 4,
            "start": "adapted",
        }
    )  # fmt: skip


def crossed() -> dict[ArmIdentity, float]:
    """Arms of two criteria and two schedules, whose seeds differ far more than they do, and their distances."""
    random = np.random.default_rng(0)
    of_seed = {seed: math.exp(random.normal()) for seed in SEEDS}
    return {
        arm(criterion, schedule, seed): of_seed[seed]
        * (BAD if criterion == "random" else 1)
        * (LATE if schedule == "vote" else 1)
        * math.exp(0.02 * random.normal())
        for criterion in ("ced", "random")
        for schedule in ("one_shot", "vote")
        for seed in SEEDS
    }


def found_in(distances: Mapping[ArmIdentity, float]) -> list[Effect]:
    return effects(cells(list(distances), list(distances.values())))


def test_each_effect_is_found_at_each_level_of_the_other_though_seeds_differ_more() -> None:
    found = {(effect.of, effect.one, effect.at): effect for effect in found_in(crossed())}
    expected = {
        ("criterion", "random", "one_shot"): BAD,
        ("criterion", "random", "vote"): BAD,
        ("schedule", "vote", "ced"): LATE,
        ("schedule", "vote", "random"): LATE,
    }
    assert found.keys() == expected.keys()
    for key, truth in expected.items():
        ratio = found[key].ratio
        assert ratio is not None and ratio.value == pytest.approx(truth, rel=0.05)
        assert ratio.high / ratio.low < 1.2  # distances of a cell differ by more than a factor of 2
        assert 1 < found[key].detectable < 1.1
    chances = corrected(list(found.values()))
    assert all(chance is not None and chance < 0.05 for chance in chances)
    assert all(
        one >= effect.chance for one, effect in zip(chances, found.values(), strict=True) if one and effect.chance
    )


def test_what_is_compared_with_is_what_the_arms_name_first() -> None:
    turned = dict(reversed(crossed().items()))
    first, *_ = found_in(turned)
    assert (first.one, first.against, first.at) == ("ced", "random", "vote")
    assert first.ratio is not None and first.ratio.value == pytest.approx(1 / BAD, rel=0.1)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6))
def test_what_a_seed_does_to_all_arms_alike_changes_no_effect(shifts: list[float]) -> None:
    kinds = [("ced", "one_shot"), ("random", "one_shot"), ("random", "vote")]
    shifted = {
        arm(*kind, seed): math.exp(place * 0.3 + seed * 0.1 * place + shift)
        for place, kind in enumerate(kinds)
        for seed, shift in enumerate(shifts)
    }
    for effect in found_in(shifted):
        assert effect.logs == pytest.approx([0.3 + 0.1 * seed for seed in range(len(shifts))])


def test_several_draws_of_a_set_are_one_number_a_seed() -> None:
    draws = [arm("random", "one_shot", seed, name) for seed in (0, 1) for name in ("first", "second")]
    ((_, of_network),) = cells(draws, [1.0, 4.0, 9.0, 1.0]).items()
    assert of_network == {Cell("random", "one_shot"): {0: pytest.approx(math.log(2)), 1: pytest.approx(math.log(3))}}


def test_only_seeds_that_both_have_are_compared_and_networks_are_not_mixed() -> None:
    one = {arm("ced", "one_shot", seed): 1.0 for seed in (0, 1, 2)}
    other = {arm("random", "one_shot", seed): 2.0 + seed for seed in (1, 2, 3)}
    strange = {arm("taylor", "one_shot", seed, backbone="sit"): 5.0 for seed in (0, 1)}
    (effect,) = found_in(one | other | strange)
    assert effect.logs == (math.log(3), math.log(4))
    alone = {arm("random", "one_shot", 0): 2.0}
    assert found_in(one | alone) == []  # one pair has no interval


def test_seeds_that_all_say_the_same_have_no_p_value() -> None:
    same = {arm(criterion, "vote", seed): size for criterion, size in (("ced", 2.0), ("random", 2.0)) for seed in SEEDS}
    (effect,) = found_in(same)
    assert effect.chance is None and effect.detectable == 1 and corrected([effect]) == [None]


def test_the_table_the_figure_and_the_sentences_lie_side_by_side(tmp_path: Path) -> None:
    paths, distances = Layout("study", tmp_path), crossed()
    for one, distance in distances.items():
        write_json(paths.metrics(one.key).path, {"fd_net": distance})
    settings: dict[str, Any] = {"caption": "Crossed", "distance": "fd_net"}
    settings["arms"] = [one.model_dump() for one in distances]
    out = paths.effects("crossed")
    given = [
        "rule",
        "effects",
        "--settings",
        json.dumps(settings),
        "--results",
        str(paths.root),
        "--out",
        str(out.path),
    ]
    assert main(given) == 0
    assert all(file.stat().st_size > 0 for file in out.files.values())
    text = out.files["md"].read_text()
    assert "![Crossed](crossed.png)" in text and "(crossed.csv)" in text
    (said,) = [line for line in text.splitlines() if line.startswith("- **DiT, d, 50 %, effect of the schedule.**")]
    assert "2 of 2 comparisons: vote / one shot at CED 0." in said
    with out.files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["effect of"], row["at"]) for row in rows] == [
        ("criterion", "one shot"), ("criterion", "vote"), ("schedule", "CED"), ("schedule", "random"),
    ]  # fmt: skip
    assert all(float(row["ratio low"]) < float(row["ratio"]) < float(row["ratio high"]) for row in rows)
