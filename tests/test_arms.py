"""Arms of a study: lists expanded, overrides merged, stages laid out over the steps."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entpruner.params.files import check, read_study
from entpruner.params.reporting import ArmsFigure, Table
from entpruner.study.arms import Arm, expand, select

PARAMS = Path(__file__).parents[1] / "params"
SIZES = {"hidden_size": 32, "num_heads": 2, "patch_size": 4}


def pruned(**changes: Any) -> dict[str, Any]:
    spec = {"label": "x", "backbone": "dit", "data": "downstream", "schedule": "vote", "criterion": "ced", "ratio": 0.5}
    return spec | changes


def arms_of(arms: dict[str, Any], **sections: Any) -> dict[str, Arm]:
    base = {
        "study": "tiny",
        "datasets": {
            "upstream": {"source": "digits", "classes": [0, 1]},
            "downstream": {"source": "digits", "classes": [2, 3]},
        },
        "backbones": {
            "dit": {"process": {"kind": "diffusion"}, "depth": 10, **SIZES},
            "sit": {"process": {"kind": "flow"}, "depth": 8, **SIZES},
        },
        "pretrain": {"steps": 5},
        "adapt": {"steps": 5},
        "finetune": {"steps": 40},
        "pruning": {"stages": 2},
        "arms": arms,
    }
    return expand(check(base | sections))


def test_every_list_is_expanded_and_every_arm_has_a_key_of_its_own() -> None:
    spec = pruned(backbone=["dit", "sit"], data=["upstream", "downstream"], ratio=[0.3, 0.5, 0.625])
    arms = arms_of({"ours": spec, "full": {"label": "f", "backbone": "sit", "data": "downstream"}}, seeds=[0, 7])
    assert len(arms) == 2 * 2 * 3 * 2 + 2
    assert all(key == arm.key for key, arm in arms.items())
    assert {"ours-dit-upstream-r30-s7", "ours-sit-downstream-r62.5-s0", "full-sit-downstream-s7"} <= arms.keys()
    arm = arms["ours-sit-downstream-r30-s7"]
    assert (arm.process, arm.depth, arm.blocks_removed, arm.stages) == ("flow", 8, 2, 2)
    full = arms["full-sit-downstream-s0"]
    assert (full.blocks_removed, full.stages, full.criterion) == (0, 0, None)


def test_close_ratios_do_not_share_a_key() -> None:
    assert len(arms_of({"ours": pruned(ratio=[0.3333331, 0.3333332])})) == 2


def test_an_override_is_merged_over_its_sections_for_its_arm_alone() -> None:
    override = {"pruning": {"weights": {"zico": 0}}, "finetune": {"steps": 80}, "proxies": {"ntk": {"samples": 4}}}
    arms = arms_of({"plain": pruned(), "own": pruned(override=override)}, pruning={"stages": 3, "lookahead": 1})
    plain, own = arms.values()
    assert (plain.pruning.weights.zico, plain.finetune.steps, plain.proxies.ntk.samples) == (1, 40, 16)
    assert (own.pruning.weights.zico, own.finetune.steps, own.proxies.ntk.samples) == (0, 80, 4)
    assert (own.pruning.weights.ntk, own.pruning.lookahead, own.stages) == (1, 1, 3)  # the rest is the study's


@pytest.mark.parametrize(
    ("override", "scores"),
    [
        ({}, "ced"),
        ({"pruning": {"tie": "fewer"}}, "ced"),
        ({"scoring": {"draws": 1024}}, "ced"),  # what the study says anyway
        ({"scoring": {"draws": 8}}, "ced-ours"),
        ({"sampling": {"guidance": 3.0}}, "ced"),
    ],
)
def test_arms_share_scores_unless_they_score_with_settings_of_their_own(override: dict[str, Any], scores: str) -> None:
    (arm,) = arms_of({"ours": pruned(override=override)}).values()
    assert arm.scores == scores


@given(
    steps=st.integers(40, 400),
    stages=st.integers(1, 5),
    fraction=st.floats(0.2, 1),
    schedule=st.sampled_from(["one_shot", "delayed", "linear", "vote", "random_vote"]),
)
def test_stages_divide_their_share_of_the_steps(steps: int, stages: int, fraction: float, schedule: str) -> None:
    pruning = {"stages": stages, "fraction": fraction}
    (arm,) = arms_of({"ours": pruned(schedule=schedule)}, finetune={"steps": steps}, pruning=pruning).values()
    marks = arm.boundaries
    assert (marks[0], marks[-1], len(marks)) == (0, steps, arm.stages + 2)
    *lengths, _ = [stop - start for start, stop in pairwise(marks)]  # the last is the recovery
    assert marks[-2] == round(fraction * steps)
    assert marks[-2] <= steps
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


def test_an_unpruned_arm_trains_in_one_piece() -> None:
    (arm,) = arms_of({"full": {"label": "full", "backbone": "dit", "data": "downstream"}}).values()
    assert arm.boundaries == (0, 40)


def test_a_table_shows_its_arms_in_its_own_order_and_only_what_it_asks_for() -> None:
    spec = pruned(backbone=["dit", "sit"], ratio=[0.3, 0.5])
    arms = arms_of({"ours": spec, "full": {"label": "full", "backbone": ["dit", "sit"], "data": "downstream"}})

    def shown(**only: Any) -> list[str]:
        return [arm.key for arm in select(arms.values(), Table(caption="", arms=("full", "ours"), only=only))]

    assert shown()[:3] == ["full-dit-downstream-s0", "full-sit-downstream-s0", "ours-dit-downstream-r30-s0"]
    assert len(shown()) == 6
    assert shown(backbone=("sit",), ratio=(0.5,)) == ["full-sit-downstream-s0", "ours-sit-downstream-r50-s0"]
    figure = ArmsFigure(kind="curves", caption="", arms=("ours",), only={"ratio": (0.3,)})
    assert [arm.backbone for arm in select(arms.values(), figure)] == ["dit", "sit"]


def test_each_ablation_of_digits_is_entpruner_with_one_thing_changed() -> None:
    study = read_study([PARAMS / "digits.yaml"])
    arms = [arm for arm in select(expand(study).values(), study.tables["table4"]) if arm.seed == 0]
    assert {(arm.backbone, arm.data) for arm in arms} == {("sit", "downstream")}
    assert {arm.ratio for arm in arms} == {0.5, 0.67}
    things = ("criterion", "schedule", "scoring", "proxies", "pruning", "finetune", "sampling", "start")
    for ratio in (0.5, 0.67):
        base, *others = sorted((arm for arm in arms if arm.ratio == ratio), key=lambda arm: arm.label != "EntPruner")
        changes = {
            arm.name: [thing for thing in things if getattr(arm, thing) != getattr(base, thing)] for arm in others
        }
        assert all(len(changed) == 1 for changed in changes.values()), changes


def test_an_arm_with_seeds_of_its_own_leaves_the_others_theirs() -> None:
    arms = arms_of({"ours": pruned(seeds=[0, 3]), "other": pruned()}, seeds=[1])
    assert [(arm.name, arm.seed) for arm in arms.values()] == [("ours", 0), ("ours", 3), ("other", 1)]
    shown = Table(caption="t", arms=["ours", "other"], only={"seed": [3]})
    assert [arm.seed for arm in select(arms.values(), shown)] == [3]
