"""MLflow's view of finished arms. No other module uses MLflow, and no result is read from it.

A tag of a run holds the key of its artefact, and another tag holds a digest of its content. ``sync`` compares both with
the records, so it always ends with the same runs, whether it is repeated or begins with an empty database.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from entpruner.errors import UserError
from entpruner.system.files import sha256_of, whole_file

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it on import

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from sqlalchemy.exc import SQLAlchemyError

KEY, CONTENT, PARENT = "entpruner.key", "entpruner.content", "mlflow.parentRunId"
VIEW = "arms"
"""The name of the view of an experiment that its page opens on. MLflow keeps such a view in a tag of the experiment."""


@dataclass(frozen=True)
class RunRecord:
    """A run of MLflow: an arm with one seed, or, if it has no parent, a table that arms are listed under."""

    key: str
    """The key that identifies the run: ``<study>/<arm>``, or ``<study>/<table>``."""
    name: str
    parent: str | None = None
    """The key of the run of the table. None for a table."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The resolved settings. Nested keys become dotted keys."""
    curve: Sequence[Mapping[str, Any]] = ()
    """The points that the training logged. Each number of a point becomes a metric at the point's ``step``."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """The final numbers. A number that is None is left out."""
    files: Sequence[tuple[str, Path]] = ()
    """Small files, such as images and decisions, each with the name of the folder that MLflow shows it in."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Where the run comes from: the digest of the code, the commit, and the path of the checkpoint."""

    @property
    def content(self) -> str:
        """The digest of what the run shows."""
        shown = [self.name, self.parent, self.settings, self.curve, self.metrics, self.tags]
        files = [(folder, file.name, sha256_of(file)) for folder, file in self.files]
        return hashlib.sha256(json.dumps([*shown, files], sort_keys=True, default=str).encode()).hexdigest()


def sync(study: str, records: Sequence[RunRecord], database: Path, artifacts: Path) -> dict[str, int]:
    """Make the MLflow experiment ``study`` show exactly ``records``, in which parents come before their children.

    Runs with another content are replaced, runs without a record are deleted, and all others are kept. The result has
    the numbers of runs that were ``written``, ``kept`` and ``deleted``. A second process waits for its turn, and what
    a killed one left is completed by the next. Raises UserError if this version of MLflow cannot use the database.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        try:
            client = opened(database)
            location = (artifacts / study).resolve().as_uri()  # the default is the working folder
            experiment = client.get_experiment_by_name(study)
            if experiment is None:
                return update(client, client.create_experiment(study, location), records)
            if experiment.lifecycle_stage == "deleted":  # in the page of MLflow
                client.restore_experiment(experiment.experiment_id)
            if experiment.artifact_location != location:
                move(database, experiment.experiment_id, experiment.artifact_location, location)
            return update(client, experiment.experiment_id, records)
        except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            if "database is locked" in str(error):
                raise UserError(f"{database}: another program has locked it; end it, or wait, and repeat") from None
            raise UserError(f"{database}: {reason}; delete it and repeat: it is rebuilt from the artefacts") from None


def open_on_arms(study: str, database: Path, settings: Sequence[str], metrics: Sequence[str]) -> str:
    """Let MLflow's page of a study open on its arms, with these settings and metrics as columns.

    The arms are sorted by the first of the metrics, the lowest first. Returns the end of the address of the page.
    """
    client = opened(database)
    [found] = client.search_experiments(filter_string=f"name = '{study}'")
    experiment: str = found.experiment_id
    shown = [f"params.`{name}`" for name in settings] + [f"metrics.`{name}`" for name in metrics]
    view = {
        "searchFilter": f"params.{settings[0]} != ''",  # a run without settings is that of a table
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": True,
        "selectedColumns": shown,
    }
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))
    client.set_experiment_tag(experiment, "mlflow.experimentKind", "custom_model_development")
    return f"#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"


def opened(database: Path) -> MlflowClient:
    """A client of the database. A new database is written as a whole, because MLflow cannot open a half-written one."""
    if not database.exists():
        with whole_file(database) as partial:
            partial.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{partial.resolve()}").search_experiments()
    return MlflowClient(f"sqlite:///{database.resolve()}")


def move(database: Path, experiment: str, old: str, new: str) -> None:
    """Let an experiment and its runs keep their files at the URI ``new``, after the checkout was moved or copied.

    MLflow has no call for it. Without it, MLflow would write to ``old``, into the other checkout.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment))
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND instr(artifact_uri, ?) = 1",
            (new, len(old) + 1, experiment, f"{old}/"),
        )


def shows_files(run: Run, record: RunRecord) -> bool:
    """Whether all files of a record are where its run keeps them."""
    folder = Path(url2pathname(urlsplit(run.info.artifact_uri).path))
    return all((folder / inner / file.name).is_file() for inner, file in record.files)


def update(client: MlflowClient, experiment: str, records: Sequence[RunRecord]) -> dict[str, int]:
    """Bring the runs of an experiment up to date, and count what was done, as ``sync`` describes."""
    wanted, ids, others = {record.key: record for record in records}, dict[str, str](), set[str]()
    for run in client.search_runs([experiment], max_results=SEARCH_MAX_RESULTS_THRESHOLD):
        key = run.data.tags.get(KEY, "")
        record = None if key in ids else wanted.get(key)  # a restored experiment has the runs that were replaced, too
        if record and run.data.tags.get(CONTENT) == record.content and shows_files(run, record):
            ids[record.key] = run.info.run_id
        else:
            client.delete_run(run.info.run_id)
            others.add(key)
    counts = {"written": len(records) - len(ids), "kept": len(ids), "deleted": len(others - wanted.keys())}
    for record in records:
        if record.key not in ids:
            ids[record.key] = write(client, experiment, record)
        if record.parent is not None:
            client.set_tag(ids[record.key], PARENT, ids[record.parent])
    return counts


def write(client: MlflowClient, experiment: str, record: RunRecord) -> str:
    """Create the run of a record. Returns its id."""
    now = int(time.time() * 1000)
    tags = {**record.tags, KEY: record.key}
    run: str = client.create_run(experiment, run_name=record.name, tags=tags).info.run_id
    metrics = [Metric(key, value, now, 0) for key, value in record.metrics.items() if value is not None]
    metrics += [
        Metric(f"curve/{key}", value, now, point["step"])
        for point in record.curve
        for key, value in point.items()
        if key != "step" and isinstance(value, int | float)
    ]
    client.log_batch(run, metrics, [Param(key, value) for key, value in flattened(record.settings)])
    for folder, file in record.files:
        client.log_artifact(run, file, folder)
    client.set_terminated(run)
    client.set_tag(run, CONTENT, record.content)  # comes last: a run without it is incomplete, and is replaced
    return run


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as pairs of a dotted key and a text. A value that is no text is written as JSON."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value, default=str)
