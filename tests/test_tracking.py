"""MLflow shows exactly the records: after one sync, after two, after a change and from scratch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from refusals import refused

from entpruner.errors import UserError
from entpruner.reporting.tracking import RunRecord, open_on_arms, sync

CURVE = [{"step": step, "loss": 1 / (step + 1), "lr": 1e-4, "stage": 0} for step in range(0, 500, 5)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def records(store: Path) -> list[RunRecord]:
    decision = store / "decision.json"
    decision.write_text("{}")
    settings = {"criterion": "ced", "finetune": {"steps": 500, "betas": [0.9, 0.999]}}
    arms = [
        RunRecord(
            f"digits/arm-s{seed}",
            f"arm, seed {seed}",
            "digits/table1",
            settings | {"seed": seed},
            CURVE,
            {"fd_classifier": 1.5 + seed, "kappa": None},
            [("stage1", decision)],
            {"checkpoint": f"results/arm-s{seed}/final/model.safetensors"},
        )
        for seed in range(3)
    ]
    return [RunRecord("digits/table1", "Table 1"), *arms]


def runs(store: Path) -> dict[str, dict]:
    """All that MLflow shows, by key, but for ids and times."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    found = client.search_runs([experiment.experiment_id])
    keys = {run.info.run_id: run.data.tags["entpruner.key"] for run in found}
    shown = {
        keys[run.info.run_id]: {
            "params": run.data.params,
            "metrics": run.data.metrics,
            "points": [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "curve/loss")],
            "files": [file.path for file in client.list_artifacts(run.info.run_id, "stage1")],
            "parent": keys.get(run.data.tags.get("mlflow.parentRunId")),
            "checkpoint": run.data.tags.get("checkpoint"),
        }
        for run in found
    }
    assert len(shown) == len(found), "a key has more than one run"
    return shown


def synced(store: Path, records: list[RunRecord]) -> dict[str, int]:
    return sync("digits", records, store / "mlflow.db", store / "artifacts")


def test_a_run_shows_params_curves_metrics_files_and_its_table(store: Path, records: list[RunRecord]) -> None:
    synced(store, records)
    arm = runs(store)["digits/arm-s1"]
    params = {"criterion": "ced", "finetune.steps": "500", "finetune.betas": "[0.9, 0.999]", "seed": "1"}
    assert arm["params"] == params
    assert arm["metrics"]["fd_classifier"] == 2.5
    assert "kappa" not in arm["metrics"]
    assert arm["points"] == [(point["step"], point["loss"]) for point in CURVE]
    assert arm["files"] == ["stage1/decision.json"]
    assert arm["parent"] == "digits/table1"
    assert arm["checkpoint"] == "results/arm-s1/final/model.safetensors"
    assert list((store / "artifacts" / "digits").rglob("decision.json"))


def test_settings_and_curves_longer_than_mlflow_takes_at_once_are_whole(
    tmp_path: Path, records: list[RunRecord]
) -> None:
    curve = [{"step": step, "loss": 1.0} for step in range(1200)]
    synced(tmp_path, [records[0], replace(records[1], curve=curve, settings={f"s{i}": i for i in range(150)})])
    arm = runs(tmp_path)["digits/arm-s0"]
    assert (len(arm["points"]), len(arm["params"])) == (1200, 150)


def test_a_second_sync_writes_nothing(store: Path, records: list[RunRecord]) -> None:
    synced(store, records)
    before = runs(store)
    assert synced(store, records) == {"written": 0, "kept": 4, "deleted": 0}
    assert runs(store) == before


def test_a_rerun_with_other_values_replaces_its_run_alone(store: Path, records: list[RunRecord]) -> None:
    synced(store, records)
    before = runs(store)
    records[2] = replace(records[2], metrics={"fd_classifier": 9.0}, curve=CURVE[:10], settings={"seed": 1})
    assert synced(store, records) == {"written": 1, "kept": 3, "deleted": 0}
    after = runs(store)
    changed = after.pop("digits/arm-s1")
    assert (changed["metrics"]["fd_classifier"], len(changed["points"]), changed["params"]) == (9.0, 10, {"seed": "1"})
    assert after == {key: value for key, value in before.items() if key != "digits/arm-s1"}
    records[0] = replace(records[0], metrics={"rows": 3.0})  # arms follow a table that was rewritten
    assert synced(store, records)["written"] == 1
    assert {run["parent"] for key, run in runs(store).items() if key != "digits/table1"} == {"digits/table1"}


def test_from_scratch_gives_the_same_runs_and_an_arm_that_is_gone_goes(
    store: Path, records: list[RunRecord], tmp_path: Path
) -> None:
    synced(store, records)
    assert synced(store, records[:-1]) == {"written": 0, "kept": 3, "deleted": 1}
    synced(tmp_path, records[:-1])
    assert runs(tmp_path) == runs(store)


def test_a_run_that_was_cut_short_is_written_again(
    store: Path, records: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(store, records)
    whole = runs(store)
    records[3] = replace(records[3], metrics={"fd_classifier": 0.5})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "set_terminated", interrupt)
        synced(store, records)
    synced(store, records)
    again = runs(store)["digits/arm-s2"]
    assert (again["points"], again["metrics"]["fd_classifier"]) == (whole["digits/arm-s2"]["points"], 0.5)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_checkout_that_was_copied_keeps_its_files_to_itself(
    store: Path, records: list[RunRecord], tmp_path: Path
) -> None:
    synced(store, records)
    copy = shutil.copytree(store, tmp_path / "copy")
    before = sorted(store.rglob("*"))
    records[1] = replace(records[1], metrics={"fd_classifier": 4.0})
    assert synced(copy, records) == {"written": 1, "kept": 3, "deleted": 0}
    assert sorted(store.rglob("*")) == before
    client = MlflowClient(f"sqlite:///{copy / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    uris = [run.info.artifact_uri for run in client.search_runs([experiment.experiment_id])]
    assert all(uri.startswith((copy / "artifacts/digits").as_uri()) for uri in [experiment.artifact_location, *uris])
    assert all(run["files"] == ["stage1/decision.json"] for run in runs(copy).values() if run["parent"])


def test_an_experiment_that_was_deleted_in_the_page_is_shown_again(store: Path, records: list[RunRecord]) -> None:
    synced(store, records)
    before, client = runs(store), MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    client.delete_experiment(client.get_experiment_by_name("digits").experiment_id)
    synced(store, records)
    assert client.get_experiment_by_name("digits").lifecycle_stage == "active" and runs(store) == before


def test_files_that_are_gone_are_written_again(store: Path, records: list[RunRecord]) -> None:
    synced(store, records)
    before = runs(store)
    shutil.rmtree(store / "artifacts")
    assert synced(store, records) == {"written": 3, "kept": 1, "deleted": 0}
    assert runs(store) == before


def test_a_locked_database_is_one_line_that_deletes_nothing(
    store: Path, records: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(store, records)

    def locked(*_: object, **__: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database is locked\n[SQL: UPDATE runs]")

    monkeypatch.setattr(MlflowClient, "search_runs", locked)
    with refused(store / "mlflow.db", "another program has locked it; end it, or wait, and repeat"):
        synced(store, records)


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="delete it") as error:
        synced(tmp_path, [])
    assert "\n" not in str(error.value)


def test_the_page_opens_on_the_arms_with_metrics_as_columns(store: Path, records: list[RunRecord]) -> None:
    synced(store, records)
    page = open_on_arms("digits", store / "mlflow.db", ["seed"], ["fd_classifier"])
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    view = json.loads(experiment.tags["mlflow.sharedViewState.arms"])
    assert page.startswith(f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=arms")
    assert view["selectedColumns"] == ["params.`seed`", "metrics.`fd_classifier`"]
    listed = client.search_runs([experiment.experiment_id], view["searchFilter"], order_by=[view["orderByKey"]])
    assert [run.info.run_name for run in listed] == [f"arm, seed {seed}" for seed in range(3)]
