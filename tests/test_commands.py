"""The rules' commands one after the other on a tiny study: what each leaves, a kill in between, and bad input."""

import json
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import Runs
from small_training import Kill
from snakemake_runs import job

from entpruner.cli import main
from entpruner.data.store import Store
from entpruner.evaluation.cost import cost_key
from entpruner.layout import CHECKSUMS
from entpruner.models.arithmetic import macs, unet_macs
from entpruner.models.checkpoints import load_model, save_model
from entpruner.params.backbones import UNetArchitecture
from entpruner.reporting.results import curve_of, stage_folders
from entpruner.scores import Scores
from entpruner.system.files import read_json, write_json
from entpruner.training import optimizers
from entpruner.training.state import TrainState

COMPUTE = {"device": "cpu", "threads": 1}
BACKBONE = {"process": {"kind": "flow"}, "depth": 5, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
TRAINING = {
    "batch_size": 8,
    "learning_rate": 1e-3,
    "decay": "cosine",
    "log_every": 2,
    "checkpoint_every": 2,
    "steps": 9,
}
STARTS = (0, 3, 7, 9)  # first steps of the two stages and the recovery, and the end
TOTAL = 3
ALL = {"seed": 0, "compute": COMPUTE}
ARM = ALL | {"training": TRAINING}
SAMPLING = {"samples": 12, "batch_size": 12, "flow": {"name": "euler", "steps": 2}}
pytestmark = pytest.mark.usefixtures("process_settings")


def entpruner(rule: str, settings: dict[str, Any], **paths: Path | list[Path]) -> int:
    return main(job(rule, settings, **paths))


def of_stage(stage: int) -> dict[str, int]:
    """Its number and its steps; the last is the recovery."""
    return {"stage": stage, "start": STARTS[stage - 1], "stop": STARTS[stage]}


def prune_settings(stage: int, **changes: Any) -> dict[str, Any]:
    settings = {
        "artefact": f"arms/a/stage{stage}",
        "schedule": "vote",
        "pruning": {"stages": 2, "lookahead": 2},
        "proxies": {"ntk": {"samples": 4}, "zico": {"batches": 8, "batch_size": 2}},
        "stages": 2,
        "total": TOTAL,
    }
    return ARM | settings | of_stage(stage) | changes


def data_settings(*classes: int, test_fraction: float = 0.2) -> dict[str, Any]:
    return {"dataset": {"source": "digits", "classes": classes, "test_fraction": test_fraction}}


def prepare(root: Path) -> None:
    """Everything up to the scores."""
    short = ARM | {"training": TRAINING | {"steps": 2}, "stop": 2}
    assert entpruner("data", data_settings(0, 1, 2), out=root / "upstream") == 0
    assert entpruner("data", data_settings(3, 4), out=root / "store") == 0
    pretrain = short | {"artefact": "pretrain/sit", "backbone": BACKBONE}
    assert entpruner("pretrain", pretrain, store=root / "upstream", out=root / "pretrain") == 0
    adapt = short | {"artefact": "adapt/sit"}
    assert entpruner("adapt", adapt, store=root / "store", init=root / "pretrain", out=root / "adapt") == 0
    scoring = {"draws": 16, "batch_size": 16}
    score = {"artefact": "scores/sit", "criterion": "ced", "scoring": scoring, "sampling": SAMPLING}
    assert entpruner("score", ALL | score, store=root / "store", init=root / "adapt", out=root / "scores") == 0


def prune(root: Path, stage: int, out: Path, paths: dict[str, Path] | None = None, **changes: Any) -> int:
    init = root / ("adapt" if stage == 1 else "stage1")
    paths = {"store": root / "store", "init": init, "scores": root / "scores/scores.json"} | (paths or {})
    return entpruner("prune", prune_settings(stage, **changes), out=out, **paths)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished arm."""
    root = tmp_path_factory.mktemp("study") / "arms/a"
    prepare(root)
    for stage in (1, 2):
        assert prune(root, stage, root / f"stage{stage}") == 0
    recover = ARM | {"artefact": "arms/a/final"} | of_stage(3)
    assert entpruner("recover", recover, store=root / "store", init=root / "stage2", out=root / "final") == 0
    return root


# --------------------------------------------------------------------------------------------------- what they leave


def test_the_average_and_the_state_are_pruned_as_was_decided(root: Path) -> None:
    gone: list[int] = []
    order = Scores.from_json(read_json(root / "scores/scores.json")).order
    for stage in (1, 2):
        decision = read_json(root / f"stage{stage}/decision.json")
        assert tuple(decision["order"]) == order
        assert decision["removed_before"] == len(gone)
        gone += decision["dropped"]
        model, card = load_model(root / f"stage{stage}")
        state = TrainState.load(root / f"stage{stage}", model)
        kept = tuple(sorted(set(range(5)) - set(gone)))
        assert tuple(decision["kept_blocks"]) == card.kept_blocks == state.model.kept_blocks == kept
    assert tuple(gone) == order[:TOTAL]
    assert load_model(root / "final")[1].kept_blocks == kept


def test_a_monitored_arm_has_the_same_bits_and_its_timing_the_readings_of_all_its_stages(
    root: Path, tmp_path: Path
) -> None:
    proxies = {"ntk": {"samples": 4}, "zico": {"batches": 8, "batch_size": 2}}
    watched = {"watched": {"every": 4, "proxies": proxies, "pruning": {"stages": 2}, "total": TOTAL}}
    first, last = tmp_path / "stage1", tmp_path / "final"
    assert prune(root, 1, first, **watched) == 0
    recover = ARM | {"artefact": "arms/a/final"} | of_stage(3) | watched
    assert entpruner("recover", recover, store=root / "store", init=first, out=last) == 0
    for name in ("model.safetensors", "train_state.safetensors"):
        assert (first / name).read_bytes() == (root / "stage1" / name).read_bytes()
    found = read_json(last / "timing.json")["monitor"]
    assert [reading["step"] for reading in found["readings"]] == [0, 3, 7, 8, 9]
    assert found["readings"][:2] == read_json(first / "timing.json")["monitor"]["readings"]
    gone = 5 - found["readings"][0]["blocks"]
    assert (found["readings"][0]["votes"] is None) == (gone == TOTAL)
    assert found["last"]["zico"] == found["readings"][-1]["zico"]
    assert 0 < found["share"] < 1


def test_a_stage_votes_with_both_proxies_and_the_last_goes_to_the_target(root: Path) -> None:
    first, last = (read_json(root / f"stage{stage}/decision.json") for stage in (1, 2))
    assert first["how"] == "vote"
    assert [candidate["removed"] for candidate in first["candidates"]] == [0, 2, 3]
    assert all(candidate["zico"] is not None for candidate in first["candidates"])
    assert all((c["kappa"] is None) == c["rank_deficient"] for c in first["candidates"])
    assert last["how"] == "forced to the target"


def test_a_reranked_stage_scores_the_blocks_that_are_left(root: Path, tmp_path: Path) -> None:
    rescoring = {"criterion": "sensitivity", "scoring": {"draws": 16}}
    assert prune(root, 2, tmp_path / "stage2", rescoring=rescoring) == 0
    decision = read_json(tmp_path / "stage2/decision.json")
    left = load_model(root / "stage1")[1].kept_blocks
    found = Scores.from_json(decision["rescored"])
    assert found.criterion == "sensitivity"
    assert found.blocks == left
    assert tuple(decision["order"]) == found.order
    assert tuple(decision["dropped"]) == found.order[: TOTAL - (5 - len(left))]
    assert read_json(root / "stage2/decision.json")["rescored"] is None


def test_steps_go_on_and_are_added_up(root: Path) -> None:
    timings = [read_json(root / name / "timing.json") for name in ("stage1", "stage2", "final")]
    assert [timing["steps"] for timing in timings] == [3, 4, 2]
    assert [timing["total_steps"] for timing in timings] == [3, 7, 9]
    assert timings[2]["total_seconds"] == pytest.approx(sum(timing["seconds"] for timing in timings))
    assert timings[2]["total_flops"] == sum(timing["flops"] for timing in timings)
    per_step = [timing["flops"] / timing["steps"] for timing in timings]
    assert per_step[0] >= per_step[1] == per_step[2] > 0
    for name, stop in zip(("stage1", "stage2", "final"), STARTS[1:], strict=True):
        assert TrainState.load(root / name, load_model(root / name)[0]).step == stop
    points = [(point["stage"], point["step"]) for point in curve_of(root)]
    assert points == [(1, 2), (1, 3), (2, 4), (2, 6), (2, 7), (3, 8), (3, 9)]


def test_every_training_says_how_it_was_made_and_leaves_no_checkpoints(root: Path) -> None:
    for name in ("pretrain", "adapt", "stage1", "stage2", "final"):
        timing = read_json(root / name / "timing.json")
        assert timing["settings"]["training"]["batch_size"] == 8
        assert len(timing["code"]) == 16
    assert not [path for path in root.rglob("*") if path.suffix in (".resume", ".partial")]


def test_a_folder_left_from_a_study_with_more_stages_is_not_an_arms_stage(tmp_path: Path) -> None:
    arm = tmp_path / "arms/a"
    write_json(arm / "final/timing.json", {"settings": {"stage": 11}})  # of the recovery
    (arm / "stage11").mkdir()
    assert [folder.name for folder in stage_folders(arm)] == [f"stage{stage}" for stage in range(1, 11)]


@pytest.mark.parametrize(("dropped", "last"), [([[0], [3, 1]], 2), ([[3, 1], []], 1)])
def test_the_cut_is_what_the_last_stage_that_dropped_blocks_began_with_without_them(
    root: Path, tmp_path: Path, dropped: list[list[int]], last: int
) -> None:
    """A vote may reach the target early: then the training of later stages must not count as before recovery."""
    decisions = [tmp_path / f"decision{stage}.json" for stage in (1, 2)]
    for decision, blocks in zip(decisions, dropped, strict=True):
        write_json(decision, {"dropped": blocks})
    inits = [root / ("adapt" if stage == last else "stage1") for stage in (1, 2)]
    assert entpruner("cut", {"compute": COMPUTE}, inits=inits, decisions=decisions, out=tmp_path / "cut") == 0
    model, card = load_model(tmp_path / "cut")
    assert card.kept_blocks == model.kept_blocks == (0, 2, 4)
    assert read_json(tmp_path / "cut/timing.json")["stage"] == last
    cut, whole = model.state_dict(), load_model(root / "adapt")[0].state_dict()
    for name, weights in cut.items():
        _, place, rest = name.split(".", 2) if name.startswith("blocks.") else ("", "", "")
        assert torch.equal(weights, whole[f"blocks.{card.kept_blocks[int(place)]}.{rest}" if place else name]), name


def test_adapting_changes_the_classes_and_an_arm_can_go_unpruned(root: Path, tmp_path: Path) -> None:
    assert load_model(root / "pretrain")[1].class_names == ("0", "1", "2")
    model, card = load_model(root / "adapt")
    assert (card.class_names, model.null_class, card.kept_blocks) == (("3", "4"), 2, (0, 1, 2, 3, 4))
    unpruned = ARM | {"artefact": "arms/full/final", "stage": 1, "start": 0, "stop": 3}
    assert entpruner("recover", unpruned, store=root / "store", init=root / "adapt", out=tmp_path / "full") == 0
    assert read_json(tmp_path / "full/timing.json")["total_steps"] == 3


def test_the_pruned_network_is_sampled_measured_and_costed(root: Path, tmp_path: Path) -> None:
    final, samples, net = root / "final", tmp_path / "samples", tmp_path / "net"
    assert entpruner("sample", ALL | {"sampling": SAMPLING}, init=final, out=samples) == 0
    images = Store.open(samples, verify=True).split("samples")
    assert images.images.shape == (12, 1, 8, 8)
    assert {"grid.png", "timing.json"} < {file.name for file in samples.iterdir()}

    fit = {"steps": 3, "batch_size": 8, "width": 4, "features": 8}
    classifier = ALL | {"artefact": "classifier", "training": fit}
    assert entpruner("classifier", classifier, store=root / "store", out=net) == 0
    assert read_json(net / "metrics.json").keys() == {"accuracy_train", "accuracy_test"}

    evaluation = {"kid_subsets": 2, "kid_subset_size": 6}
    measure = ALL | {"evaluation": evaluation}
    paths = {"store": root / "store", "samples": samples, "classifier": net}
    out, timing = tmp_path / "metrics.json", tmp_path / "metrics.timing.json"
    assert entpruner("evaluate", measure, **paths, out=out, timing=timing) == 0
    assert {"fd_classifier", "fd_classifier_floor"} <= read_json(out).keys()
    assert read_json(timing)["settings"]["evaluation"]["kid_subsets"] == 2

    cost = {"backbone": BACKBONE, "blocks": [2], "batch_size": 2, "repeats": 5, "compute": COMPUTE}
    assert entpruner("cost", cost, store=root / "store", out=tmp_path / "cost.json") == 0
    full, pruned = (read_json(tmp_path / "cost.json")["blocks"][blocks] for blocks in ("5", "2"))
    assert full["parameters"] > pruned["parameters"] == sum(p.numel() for p in load_model(final)[0].parameters())
    assert full["macs"] > pruned["macs"]


# --------------------------------------------------------------------------------- efficient fine-tuning, distillation


def tune(root: Path, out: Path, method: str) -> int:
    """A whole arm of Table 2: from the pre-trained network of other classes."""
    training = TRAINING | {"steps": 5, "method": method, "lora": {"rank": 2}, "adapter_width": 3}
    arm = {"artefact": "arms/t/final", "stage": 1, "start": 0, "stop": 5, "new_labels": True, "training": training}
    return entpruner("recover", ARM | arm, store=root / "store", init=root / "pretrain", out=out)


@pytest.fixture(scope="module", params=["full", "bitfit", "lora", "difffit", "adapters"])
def tuned(request: pytest.FixtureRequest, root: Path) -> Path:
    """The finished arm of a method, in a folder of its name."""
    out = root / "tuned" / request.param
    assert tune(root, out, request.param) == 0
    return out


def test_every_method_makes_a_network_of_the_datas_classes_that_is_sampled_and_costed(
    root: Path, tuned: Path, tmp_path: Path
) -> None:
    model, card = load_model(tuned)
    width = 3 if tuned.name == "adapters" else None
    assert (card.class_names, card.kept_blocks, card.adapter_width) == (("3", "4"), (0, 1, 2, 3, 4), width)
    timing = read_json(tuned / "timing.json")
    assert timing["total_seconds"] == timing["seconds"] > 0
    whole = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert timing["trained_parameters"] == whole if tuned.name == "full" else timing["trained_parameters"] < whole / 2

    assert entpruner("sample", ALL | {"sampling": SAMPLING}, init=tuned, out=tmp_path / "samples") == 0
    cost = {"backbone": BACKBONE, "blocks": [5], "adapter_widths": [3], "batch_size": 2, "repeats": 5}
    assert entpruner("cost", cost | {"compute": COMPUTE}, store=root / "store", out=tmp_path / "cost.json") == 0
    networks = read_json(tmp_path / "cost.json")["blocks"]
    assert networks.keys() == {"5", "5+a3"}
    entry = networks[cost_key(len(card.kept_blocks), card.adapter_width)]
    assert (entry["blocks"], entry["parameters"]) == (5, sum(p.numel() for p in model.parameters()))
    assert networks["5"]["speedup"] == 1
    assert networks["5+a3"]["macs"] > networks["5"]["macs"]


@pytest.mark.parametrize("tuned", ["bitfit"], indirect=True)
def test_the_frozen_weights_are_the_pretrained_networks(root: Path, tuned: Path) -> None:
    before, after = (load_model(folder)[0].state_dict() for folder in (root / "pretrain", tuned))
    moved = {name for name in after if before[name].shape != after[name].shape or not before[name].equal(after[name])}
    assert moved == {name for name in after if name.endswith(".bias")} | {"y_embedder.embedding_table.weight"}


def distill(root: Path, stage: int, out: Path, **paths: Path) -> int:
    """A stage or (3) the recovery, with a teacher."""
    training = TRAINING | {"distillation": {"features": 0.1}}
    if stage < 3:
        return prune(root, stage, out, paths, training=training)
    settings = ARM | {"artefact": "arms/a/final", "training": training} | of_stage(3)
    return entpruner("recover", settings, store=root / "store", out=out, **paths)


def test_an_arm_learns_from_its_teacher_in_every_stage_and_pays_for_it(root: Path, tmp_path: Path) -> None:
    inits = (root / "adapt", tmp_path / "stage1", tmp_path / "stage2")
    for stage, (init, name) in enumerate(zip(inits, ("stage1", "stage2", "final"), strict=True), 1):
        assert distill(root, stage, tmp_path / name, init=init, teacher=root / "adapt") == 0
        alone, taught = (read_json(folder / name / "timing.json") for folder in (root, tmp_path))
        teachers = 2 * macs(load_model(root / "adapt")[1].architecture) * 8 * alone["steps"]
        assert taught["flops"] - alone["flops"] == teachers
    assert (tmp_path / "final/model.safetensors").read_bytes() != (root / "final/model.safetensors").read_bytes()


def test_a_teacher_of_other_classes_is_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(root, 3, tmp_path / "final", init=root / "stage2", teacher=root / "pretrain") == 1
    assert f"{root / 'pretrain'}: a model of the classes 0, 1, 2, but" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- killed in between


Steps = Callable[[int | None], list[int]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Counts the optimizer steps from now on, and kills the command before that many are done."""
    step = optimizers.adamw_step

    def watched(kill_at: int | None) -> list[int]:
        done: list[int] = []

        def counted(*arguments: Any) -> None:
            if len(done) == kill_at:
                raise Kill
            done.append(1)
            step(*arguments)

        monkeypatch.setattr(optimizers, "adamw_step", counted)
        return done

    return watched


def trained(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes() for name in ("model.safetensors", "model.json", "train_state.safetensors")
    }


def lasting(folder: Path) -> tuple[Any, ...]:
    """What a stage leaves, without what a clock has told."""
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    points = [{k: v for k, v in point.items() if k != "images_per_second"} for point in curve]
    decision = {k: v for k, v in read_json(folder / "decision.json").items() if k != "seconds"}
    return sorted(file.name for file in folder.iterdir()), trained(folder), points, decision


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_that_was_killed_goes_on_and_ends_with_the_same_bits(
    root: Path, tmp_path: Path, steps: Steps, stage: int
) -> None:
    out, length = tmp_path / "again", STARTS[stage] - STARTS[stage - 1]
    steps(length - 1)
    with pytest.raises(Kill):
        prune(root, stage, out)
    assert [path.name for path in tmp_path.iterdir()] == ["again.resume"]
    done = steps(None)
    assert prune(root, stage, out) == 0
    assert len(done) < length
    assert lasting(out) == lasting(root / f"stage{stage}")
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_stage_that_was_asked_to_stop_says_where_it_saved_itself_and_goes_on_with_the_same_bits(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, done, out = optimizers.adamw_step, [], tmp_path / "again"

    def asked_in_the_first(*arguments: Any) -> None:
        if not done:
            signal.raise_signal(signal.SIGTERM)
        done.append(1)
        step(*arguments)

    monkeypatch.setattr(optimizers, "adamw_step", asked_in_the_first)
    assert prune(root, 1, out) == 75
    said = f"entpruner: asked to stop, saved {out}.resume/step-00000001: run the same command again to go on"
    assert capsys.readouterr().err.splitlines() == [said]
    assert prune(root, 1, out) == 0
    assert len(done) == STARTS[1]  # no step twice
    assert lasting(out) == lasting(root / "stage1")


def test_a_method_that_was_killed_goes_on_and_ends_with_the_same_bits(
    root: Path, tuned: Path, tmp_path: Path, steps: Steps
) -> None:
    steps(3)
    with pytest.raises(Kill):
        tune(root, tmp_path / "again", tuned.name)
    done = steps(None)
    assert tune(root, tmp_path / "again", tuned.name) == 0
    assert len(done) == 3  # from the checkpoint at step 2
    assert trained(tmp_path / "again") == trained(tuned)


def test_a_u_net_is_trained_and_adapted_and_goes_on_with_the_same_bits_after_a_kill(
    root: Path, tmp_path: Path, steps: Steps
) -> None:
    backbone = {"process": {"kind": "flow"}, "unet": {"channels": 8, "blocks_per_level": 1, "middle_blocks": 1}}
    pretrain = ARM | {"artefact": "pretrain/unet", "backbone": backbone, "stop": 9}
    adapt = ARM | {"artefact": "adapt/unet", "stop": 9}

    def both(folder: Path) -> None:
        start = folder / "pretrain"
        assert entpruner("pretrain", pretrain, store=root / "upstream", out=start) == 0
        assert entpruner("adapt", adapt, store=root / "store", init=start, out=folder / "adapt") == 0

    both(tmp_path / "whole")
    for kill_at in (5, 10):  # in pretrain; after the rest of it, which is 5 steps from its checkpoint at 4, in adapt
        steps(kill_at)
        with pytest.raises(Kill):
            both(tmp_path / "again")
    done = steps(None)
    both(tmp_path / "again")
    assert len(done) == 9 + 5
    for name in ("pretrain", "adapt"):
        assert trained(tmp_path / "again" / name) == trained(tmp_path / "whole" / name)
    model, card = load_model(tmp_path / "whole/adapt")
    assert (card.class_names, model.null_class, card.kept_blocks) == (("3", "4"), 2, (0, 1, 2, 3, 4))
    assert isinstance(card.architecture, UNetArchitecture)
    flops = read_json(tmp_path / "whole/adapt/timing.json")["flops"]
    assert flops == 3 * 2 * unet_macs(card.architecture, card.kept_blocks) * 9 * 8


@pytest.mark.parametrize("changed", ["store", "scores", "init", "teacher"])
def test_checkpoints_of_other_inputs_are_not_gone_on_from(
    root: Path, tmp_path: Path, steps: Steps, changed: str
) -> None:
    def stage2(**paths: Path) -> int:
        inputs = {"init": root / "stage1", "teacher": root / "adapt"} | paths
        return distill(root, 2, tmp_path / "out", **inputs)

    steps(3)
    with pytest.raises(Kill):
        stage2()
    other = tmp_path / changed
    if changed == "store":
        assert entpruner("data", data_settings(3, 4, test_fraction=0.3), out=other) == 0
    elif changed == "scores":
        write_json(other, read_json(root / "scores/scores.json") | {"seed": 1})
    else:
        written = root / ("stage1" if changed == "init" else "adapt")
        shutil.copytree(written, other, ignore=shutil.ignore_patterns(CHECKSUMS))
        model, card = load_model(other)
        if changed == "init":
            state = TrainState.load(other, model)
            next(iter(state.moments.values()))["exp_avg"] += 1
            state.save(other)
        else:
            model.final_layer.linear.bias.data += 1
            save_model(other, model, card)
    done = steps(None)
    assert stage2(**{changed: other}) == 0
    assert len(done) == 4


# --------------------------------------------------------------------------------------------------------- bad input


def wider(folder: Path, _: Path) -> None:
    card = read_json(folder / "model.json")
    card["architecture"]["hidden_size"] = 32
    write_json(folder / "model.json", card)


def truncated(folder: Path, _: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(folder: Path, proof: Path) -> None:
    """A pickle as large as the weights, since a small file is refused before it is looked into."""
    file = folder / "model.safetensors"
    file.write_bytes(pickle.dumps(Runs(Path.touch, proof)).ljust(file.stat().st_size, b"\0"))


def of_other_classes(folder: Path, _: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "pretrain", folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (wider, "check hidden_size 32"),
        (truncated, "truncated"),
        (pickled, "not safetensors"),
        (of_other_classes, "a model of the classes 0, 1, 2, but"),
    ],
)
@pytest.mark.parametrize("command", ["prune", "score", "recover"])
def test_a_model_that_does_not_fit_is_refused_in_one_line(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    spoil: Callable[[Path, Path], None],
    said: str,
) -> None:
    work, init = tmp_path / "work", tmp_path / "init"
    shutil.copytree(root / "adapt", init, ignore=shutil.ignore_patterns(CHECKSUMS))  # which would be the first to see
    shutil.copytree(root / "pretrain", tmp_path / "pretrain")
    spoil(init, tmp_path / "proof")
    paths = {"store": root / "store", "init": init, "out": work / "out"}
    if command == "prune":
        code = prune(root, 1, work / "out", {"init": init})
    elif command == "recover":
        code = entpruner("recover", ARM | {"artefact": "a", "stage": 1, "start": 0, "stop": 3}, **paths)
    else:
        code = entpruner(
            "score", ALL | {"artefact": "s", "criterion": "random", "scoring": {}, "sampling": {}}, **paths
        )
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"entpruner: {init}")
    assert said in line
    assert not (tmp_path / "proof").exists()
    assert not work.exists()


def test_a_stage_is_refused_without_the_training_state_that_it_goes_on_from(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = tmp_path / "init"
    shutil.copytree(root / "stage1", init)
    (init / "train_state.safetensors").unlink()
    assert prune(root, 2, tmp_path / "out", {"init": init}) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "train_state.safetensors" in line
    assert [path.name for path in tmp_path.iterdir()] == ["init"]
