"""MLflow as a view on finished arms. This is the only module that knows MLflow, and nothing is read back from it.

A run is identified by the key of its artefact, kept as a tag; another tag keeps a digest of its content. ``sync``
compares both with the records, so repeating it, or starting from an empty database, ends with the same runs.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from entpruner.errors import UserError
from entpruner.system.files import sha256_of, whole_file

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it on import

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from sqlalchemy.exc import SQLAlchemyError

KEY, CONTENT, PARENT = "entpruner.key", "entpruner.content", "mlflow.parentRunId"


@dataclass(frozen=True)
class RunRecord:
    """One run: an arm and seed, or with no ``parent`` the table that its arms are listed under."""

    key: str
    """Identifies the run: ``<study>/<arm>``, or ``<study>/<table>``."""
    name: str
    parent: str | None = None
    """Key of the table's run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Resolved settings; nested keys become ``a.b``."""
    curve: Sequence[Mapping[str, Any]] = ()
    """Points that training logged: every number beside ``step`` becomes a metric over steps."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Final numbers; None is left out."""
    files: Sequence[tuple[str, Path]] = ()
    """Small files to show (pictures, decisions), each with the folder that it is shown in; never checkpoints."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Where the run comes from: digest of the code, commit, path of the checkpoint."""

    @property
    def content(self) -> str:
        """Digest of all that the run shows."""
        shown = [self.name, self.parent, self.settings, self.curve, self.metrics, self.tags]
        files = [(folder, file.name, sha256_of(file)) for folder, file in self.files]
        return hashlib.sha256(json.dumps([*shown, files], sort_keys=True, default=str).encode()).hexdigest()


def sync(study: str, records: Sequence[RunRecord], database: Path, artifacts: Path) -> dict[str, int]:
    """Make the MLflow experiment ``study`` show exactly ``records``; parents must come before their children.

    Runs whose content changed are replaced, runs without a record deleted, all others left alone. Returns how many
    were ``written``, ``kept`` and ``deleted``. Safe against a second ``sync``, and against being killed. Raises
    UserError for a database that this MLflow cannot use.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        try:
            client = opened(database)
            experiment = client.get_experiment_by_name(study)
            if experiment is not None:
                return update(client, experiment.experiment_id, records)
            location = (artifacts / study).resolve().as_uri()  # without one, files land under the current folder
            return update(client, client.create_experiment(study, location), records)
        except (MlflowException, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{database}: {reason}; delete it and repeat: it is rebuilt from the artefacts") from None


def opened(database: Path) -> MlflowClient:
    """A client of the database. A new database appears only when it is whole: half of one could never be opened."""
    if not database.exists():
        with whole_file(database) as partial:
            partial.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{partial.resolve()}").search_experiments()
    return MlflowClient(f"sqlite:///{database.resolve()}")


def update(client: MlflowClient, experiment: str, records: Sequence[RunRecord]) -> dict[str, int]:
    found = client.search_runs([experiment], max_results=SEARCH_MAX_RESULTS_THRESHOLD)
    present = {run.data.tags.get(KEY): run for run in found}
    ids = {
        record.key: present[record.key].info.run_id
        for record in records
        if record.key in present and present[record.key].data.tags.get(CONTENT) == record.content
    }
    counts = {
        "written": len(records) - len(ids),
        "kept": len(ids),
        "deleted": len(present.keys() - {record.key for record in records}),
    }
    for key, run in present.items():
        if key not in ids:
            client.delete_run(run.info.run_id)
    for record in records:
        if record.key not in ids:
            ids[record.key] = write(client, experiment, record)
        if record.parent is not None:
            client.set_tag(ids[record.key], PARENT, ids[record.parent])
    return counts


def write(client: MlflowClient, experiment: str, record: RunRecord) -> str:
    """Create a run with all that its record holds; its id."""
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
    client.set_tag(run, CONTENT, record.content)  # last: a run without it was cut short and is written again
    return run


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as (dotted key, text); lists as JSON."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value, default=str)
