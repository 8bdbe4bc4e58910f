"""MLflow's view of finished arms. No other module uses MLflow, and no result is read from it.

A tag of a run holds the key of its artefact, and another tag holds a digest of its content. ``sync`` compares both with
the records, so it always ends with the same runs, whether it is repeated or begins with an empty database.
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
            experiment = client.get_experiment_by_name(study)
            if experiment is not None:
                return update(client, experiment.experiment_id, records)
            location = (artifacts / study).resolve().as_uri()  # the default is the working folder
            return update(client, client.create_experiment(study, location), records)
        except (MlflowException, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{database}: {reason}; delete it and repeat: it is rebuilt from the artefacts") from None


def opened(database: Path) -> MlflowClient:
    """A client of the database. A new database is written as a whole, because MLflow cannot open a half-written one."""
    if not database.exists():
        with whole_file(database) as partial:
            partial.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{partial.resolve()}").search_experiments()
    return MlflowClient(f"sqlite:///{database.resolve()}")


def update(client: MlflowClient, experiment: str, records: Sequence[RunRecord]) -> dict[str, int]:
    """Bring the runs of an experiment up to date, and count what was done, as ``sync`` describes."""
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
