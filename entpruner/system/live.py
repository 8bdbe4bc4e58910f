"""Training curves on an MLflow server while the trainings run (``compute.mlflow``). No result is read from there.

A thread sends the points of a curve in batches, so that a training never waits for the server. While the server cannot
be reached, the points are kept, and they are sent as soon as it can be. At the end of a training there is one more try.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

from entpruner.system import parallel

log = logging.getLogger(__name__)

EXPERIMENT, KEY = "live", "entpruner.live"
EVERY, AT_THE_END = 2.0, 10.0
"""Seconds between two batches, and seconds that a finished training waits for its last batch at most."""
KEPT, BATCH = 10_000, 1000
"""Points that are kept while the server cannot be reached, and MLflow's largest number of metrics in a batch."""


class Live:
    """The curve of one training as a run of MLflow's experiment ``live``. Without an address nothing is sent.

    ``key`` identifies the run: the stages of an arm share one. A training that ``begins`` replaces the run of an
    earlier one with the same key, and another goes on with it. Only the first of several processes sends.
    """

    def __init__(self, address: str | None, key: str, begins: bool) -> None:
        self.address, self.key, self.begins = address, key, begins
        self.waiting: deque[Any] = deque(maxlen=KEPT)
        self.run: str | None = None
        self.complained = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        if self.address is not None and parallel.is_first():
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.thread.ident is not None:
            self.thread.join(AT_THE_END)

    def add(self, point: Mapping[str, Any]) -> None:
        """Send the numbers of a point of the curve soon, each as a metric at the point's ``step``."""
        if self.thread.ident is not None:
            now = int(time.time() * 1000)
            self.waiting += [
                (name, value, now, point["step"])
                for name, value in point.items()
                if name != "step" and isinstance(value, int | float)
            ]

    def _work(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it on import
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the next batch is the next try
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        while not self.over.wait(EVERY):
            self._send()
        self._send(last=True)

    def _send(self, last: bool = False) -> None:
        try:
            from mlflow import MlflowClient  # its import takes seconds
            from mlflow.entities import Metric

            client = MlflowClient(self.address)
            while self.waiting:
                self.run = self.run or self._run_on(client)
                batch = [self.waiting[place] for place in range(min(BATCH, len(self.waiting)))]
                client.log_batch(self.run, [Metric(*values) for values in batch])
                for _ in batch:
                    self.waiting.popleft()
            if last and self.run:
                client.set_terminated(self.run)  # a later stage can add to it still
        except Exception as error:
            if not self.complained:
                log.warning("no curve on %s: %s; the training goes on", self.address, str(error).split("\n")[0])
            self.complained = True

    def _run_on(self, client: Any) -> str:
        """The id of the run on the server."""
        experiment = client.get_experiment_by_name(EXPERIMENT)
        number = client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
        before = [run.info.run_id for run in client.search_runs([number], f"tags.`{KEY}` = '{self.key}'")]
        if before and not self.begins:
            return before[0]
        for run in before:
            client.delete_run(run)
        return client.create_run(number, tags={KEY: self.key}, run_name=self.key).info.run_id
