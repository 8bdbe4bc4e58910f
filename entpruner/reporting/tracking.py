"""MLflow as a view on finished arms. The one module that knows it: nothing is read back from it.

A run's identity is its artefact's key, kept as a tag, and its content a digest, kept as another. ``sync`` compares both
with the records, so that repeating it, or starting from an empty database, ends in the same runs.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from entpruner.errors import UserError
from entpruner.system.files import sha256_of, whole_file

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a reproduction has nobody to report to; read on import

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

KEY, CONTENT, PARENT = "entpruner.key", "entpruner.content", "mlflow.parentRunId"
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits


@dataclass(frozen=True)
class RunRecord:
    """One run: an arm and seed, or with no ``parent`` the table that its arms are listed under."""

    key: str
    """What it is found by again: <study>/<arm>, or <study>/<table>."""
    name: str
    parent: str | None = None
    """Key of the table's run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Resolved settings; nested keys become ``a.b``."""
    curve: Sequence[Mapping[str, Any]] = ()
    """Points of ``curve.jsonl``: every number beside ``step`` becomes a metric over steps."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Final numbers; None is left out."""
    files: Sequence[tuple[str, Path]] = ()
    """Small files to show (pictures, decisions), each with the folder that it is shown in; never checkpoints."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Pointers: code digest, commit, path of the checkpoint."""

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
            location = (artifacts / study).resolve().as_uri()  # with none given, files land under the current folder
            return update(client, client.create_experiment(study, location), records)
        except (MlflowException, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{database}: {reason}; delete it and repeat: it is rebuilt from the artefacts") from None


def opened(database: Path) -> MlflowClient:
    """A client of the database, which is first created whole: a migration cut short leaves one that never opens."""
    if not database.exists():
        with whole_file(database) as partial:
            partial.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{partial.resolve()}").search_experiments()
    return MlflowClient(f"sqlite:///{database.resolve()}")


def update(client: MlflowClient, experiment_id: str, records: Sequence[RunRecord]) -> dict[str, int]:
    present: dict[str | None, Run] = {run.data.tags.get(KEY): run for run in all_runs(client, experiment_id)}
    counts = {"written": 0, "kept": 0, "deleted": 0}
    ids: dict[str, str] = {}
    for record in records:
        parent = ids[record.parent] if record.parent is not None else None
        run = present.pop(record.key, None)
        if run is not None and run.data.tags.get(CONTENT) == record.content:
            ids[record.key] = run.info.run_id
            counts["kept"] += 1
        else:
            if run is not None:
                client.delete_run(run.info.run_id)
            ids[record.key] = write(client, experiment_id, record)
            counts["written"] += 1
        if parent is not None:
            client.set_tag(ids[record.key], PARENT, parent)
    for run in present.values():
        client.delete_run(run.info.run_id)
        counts["deleted"] += 1
    return counts


def all_runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def write(client: MlflowClient, experiment_id: str, record: RunRecord) -> str:
    """A new run with all that its record holds; its id."""
    now = int(time.time() * 1000)
    tags = {**record.tags, KEY: record.key}
    run_id: str = client.create_run(experiment_id, run_name=record.name, tags=tags).info.run_id
    params = [Param(key, value) for key, value in flattened(record.settings)]
    metrics = [Metric(key, value, now, 0) for key, value in record.metrics.items() if value is not None]
    metrics += [
        Metric(f"curve/{key}", value, now, point["step"])
        for point in record.curve
        for key, value in point.items()
        if key != "step" and isinstance(value, int | float)
    ]
    for start in range(0, len(params), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_BATCH])
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
    for folder, file in record.files:
        client.log_artifact(run_id, file, folder)
    client.set_terminated(run_id)
    client.set_tag(run_id, CONTENT, record.content)  # last: a run without it was cut short and is written again
    return run_id


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as (dotted key, text); lists as JSON."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value, default=str)
