"""Monitored trainings: readings every so many steps that change no bit, survive a kill, and vote as a stage would."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import (
    ARCHITECTURE,
    CPU,
    FLOW,
    SETTINGS,
    Kill,
    bits,
    drawn,
    images,
    killed_at,
    new_state,
    run,
    untimed,
)
from snakemake_runs import ROOT

from entpruner.commands.watching import watch_of
from entpruner.layout import SCORES
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.params.files import read_config, read_study
from entpruner.params.proxies import Ntk, Proxies, Zico
from entpruner.params.pruning import Pruning
from entpruner.proxies import ntk, zico
from entpruner.proxies.measure import ProxySamples
from entpruner.reporting.figures import COLOURS
from entpruner.reporting.monitor_figure import Monitored, monitored_trainings
from entpruner.rules import RULES
from entpruner.rules.rule import WATCHING, Job, TrainingSettings, Watched
from entpruner.study.resolved import ResolvedStudy
from entpruner.training.reading import Watch
from entpruner.training.state import TrainState

PROXIES = Proxies(ntk=Ntk(samples=4), zico=Zico(batches=8, batch_size=2))


def settings(total: int = 2, **pruning: Any) -> TrainingSettings:
    asked = Watched(every=4, proxies=PROXIES, pruning=Pruning(stages=2, **pruning), total=total)
    return TrainingSettings(artefact="a", seed=0, compute=CPU, training=SETTINGS, watched=asked, stop=9)


def watch(order: tuple[int, ...] = (), **pruning: Any) -> Watch:
    return watch_of(settings(**pruning), FLOW, images(), None, order)


def timeless(readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in reading.items() if key != "seconds"} for reading in readings]


# ------------------------------------------------------------------------------------------------------- while training


def test_readings_are_taken_every_so_many_steps_and_at_both_ends_and_change_no_bit(tmp_path: Path) -> None:
    plain, watched, seen = new_state(), new_state(), watch(order=(1, 0, 2))
    curve = run(plain, tmp_path / "plain")
    assert untimed(run(watched, tmp_path / "watched", watch=seen)) == untimed(curve)
    assert bits(watched) == bits(plain)
    assert [reading["step"] for reading in seen.readings] == [0, 4, 8, 9]
    assert len({reading["kappa"] for reading in seen.readings}) == 4
    assert all(reading["seconds"] > 0 for reading in seen.readings)


@pytest.mark.parametrize("call", [0, 5, 8])
def test_killed_and_started_again_it_has_the_same_readings(tmp_path: Path, call: int) -> None:
    whole, again = watch(order=(1, 0, 2)), watch(order=(1, 0, 2))
    run(new_state(), tmp_path / "whole", watch=whole)
    with pytest.raises(Kill):
        run(new_state(), tmp_path / "killed", killed_at(call), watch=watch(order=(1, 0, 2)))
    run(new_state(), tmp_path / "killed", watch=again)
    assert timeless(again.readings) == timeless(whole.readings)


def test_a_reading_is_of_the_same_samples_at_every_step_and_of_the_asked_weights() -> None:
    state = TrainState.start(drawn(Transformer(ARCHITECTURE)))
    drawn(state.model, seed=1)
    found = {on: watch(measured_on=on).read(state) for on in ("average", "trained")}
    for on, network in (("average", state.ema), ("trained", state.model)):
        samples = ProxySamples(FLOW, images(), 0, "monitor", torch.device("cpu"))
        own = ntk(drop_blocks(network, ()), FLOW, *samples.ntk(4), PROXIES.ntk, samples.signs())
        assert found[on]["kappa"] == pytest.approx(own.kappa, rel=1e-4)
        batches = list(samples.zico(PROXIES.zico))
        assert found[on]["zico"] == pytest.approx(
            zico(drop_blocks(network, ()), FLOW, batches, PROXIES.zico).value, rel=1e-4
        )
    assert found["average"]["zico"] != found["trained"]["zico"]
    state.step = 5
    assert timeless([watch(measured_on="average").read(state)]) == timeless([found["average"]])


# ---------------------------------------------------------------------------------------------------------------- votes


def test_a_vote_is_about_staying_or_going_on_along_the_grid() -> None:
    reading = watch(order=(1, 0, 2)).read(new_state())
    first, second, third = reading["candidates"]
    assert [one["removed"] for one in (first, second, third)] == [0, 1, 2]
    assert [one["dropped"] for one in (first, second, third)] == [[], [1], [1, 0]]
    assert (first["kappa"], first["zico"]) == (reading["kappa"], reading["zico"])
    assert reading["votes"] in (0, 1, 2)


def test_what_is_gone_already_is_not_voted_about_again() -> None:
    state = new_state().drop_blocks({1})
    reading = watch(order=(1, 0, 2)).read(state)
    assert [one["removed"] for one in reading["candidates"]] == [1, 2]
    assert reading["candidates"][1]["dropped"] == [0]
    assert reading["blocks"] == 2 and reading["votes"] in (0, 1)
    done = watch(order=(1, 0, 2)).read(state.drop_blocks({0}))
    assert done["votes"] is None and done["blocks"] == 1


def test_without_a_ranking_there_is_no_vote() -> None:
    reading = watch().read(new_state())
    assert reading["votes"] is None and len(reading["candidates"]) == 1


# ----------------------------------------------------------------------------------------------------- rules and figure

SMOKE = ROOT / "params/smoke.yaml"
MONITORED = {
    "pretrain": {"monitor": {"every": 10}},
    "finetune": {"monitor": {"every": 4, "criterion": "sensitivity", "ratio": 0.5}},
}


def test_only_monitored_trainings_count_the_proxies_as_a_part_of_their_code() -> None:
    plain, watched = (ResolvedStudy(read_config(over, [SMOKE])) for over in ({}, MONITORED))
    pretrain, adapt = Job("pretrain", backbone="sit"), Job("adapt", backbone="sit", data="downstream")
    assert RULES["pretrain"].code(plain, pretrain) != RULES["pretrain"].code(watched, pretrain)
    assert RULES["adapt"].code(plain, adapt) == RULES["adapt"].code(watched, adapt)
    assert RULES["pretrain"].settings(watched, pretrain).modules == [WATCHING]
    assert RULES["adapt"].settings(watched, adapt).watched is None
    assert RULES["pretrain"].work(watched, pretrain).measuring > 0 == RULES["pretrain"].work(plain, pretrain).measuring


def test_an_unpruned_arm_votes_about_the_blocks_of_its_monitor_and_a_pruned_one_about_its_own() -> None:
    study = ResolvedStudy(read_config(MONITORED, [SMOKE]))
    whole, pruned = (
        Job("recover", arm="full-sit-downstream-s0"),
        Job("prune", arm="entpruner-sit-downstream-r50-s0", stage=1),
    )
    for rule, job, criterion in (("recover", whole, "sensitivity"), ("prune", pruned, "ced")):
        assert RULES[rule].settings(study, job).watched.total == 2
        [scores] = RULES[rule].files_in(study, job)["scores"]
        assert scores == f"results/smoke/scores/sit-downstream-s0/{criterion}/{SCORES}"
    assert study.arms[whole.arm].blocks_left == 4
    scored = Job("score", backbone="sit", data="downstream", scores="sensitivity")
    assert RULES["score"].settings(study, scored).criterion == "sensitivity"


def test_unets_which_the_proxies_do_not_know_are_not_watched() -> None:
    over = MONITORED | {"backbones": {"unet": {"process": {"kind": "flow"}, "unet": {"blocks_per_level": 1}}}}
    study = ResolvedStudy(read_config(over, [SMOKE]))
    assert RULES["pretrain"].settings(study, Job("pretrain", backbone="unet")).watched is None


def test_the_shipped_study_has_every_optimizer_with_every_schedule_whole_and_pruned() -> None:
    arms = ResolvedStudy(read_study([ROOT / "params/monitor.yaml"])).arms.values()
    shown = {(arm.finetune.optimizer, arm.finetune.decay, arm.schedule) for arm in arms if arm.finetune.monitor}
    assert len(shown) == 18 and len(arms) == 18 * 3


def test_the_figure_fills_the_squares_of_votes_that_prune(tmp_path: Path) -> None:
    filled = []
    for votes in (0, 2, None):
        points = [{"step": s, "blocks": 4, "kappa": 1e4 * (s + 1), "zico": 9.0, "votes": votes} for s in range(6)]
        points[2] |= {"kappa": None}
        monitored_trainings([Monitored("AdamW", "constant", points)], tmp_path / "monitor")
        pixels = np.asarray(Image.open(tmp_path / "monitor.png").convert("RGB")).astype(int)
        blue = np.array([int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])
        filled.append(int((np.abs(pixels - blue).max(axis=2) < 8).sum()))
    assert filled[1] > filled[0] + 200 and filled[0] > filled[2]
