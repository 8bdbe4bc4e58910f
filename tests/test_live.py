"""Curves on an MLflow server while a training runs: in batches, kept while the server is gone."""

from itertools import count
from types import SimpleNamespace as Namespace

import mlflow
import pytest

from entpruner.system import live
from entpruner.system.live import Live


class Server:
    """What MlflowClient does to a server, which does not answer the first ``gone`` of its calls."""

    def __init__(self, gone: int = 0) -> None:
        self.gone, self.numbers = gone, count()
        self.runs: dict[str, str] = {}
        self.batches: list[tuple[str, list[tuple[str, float, int]]]] = []
        self.ended: list[str] = []

    def client(self, _: str) -> "Server":
        return self

    def answer(self) -> None:
        self.gone -= 1
        if self.gone >= 0:
            raise ConnectionError("refused\nby the server")

    def get_experiment_by_name(self, _: str) -> Namespace:
        self.answer()
        return Namespace(experiment_id="1")

    def search_runs(self, _: list[str], where: str) -> list[Namespace]:
        return [Namespace(info=Namespace(run_id=run)) for run, key in self.runs.items() if where.endswith(f"'{key}'")]

    def create_run(self, _: str, tags: dict[str, str], run_name: str) -> Namespace:
        run = f"run {next(self.numbers)}"
        [self.runs[run]] = tags.values()
        return Namespace(info=Namespace(run_id=run))

    def delete_run(self, run: str) -> None:
        del self.runs[run]

    def set_terminated(self, run: str) -> None:
        self.ended.append(run)

    def log_batch(self, run: str, metrics: list) -> None:
        self.answer()
        self.batches.append((run, [(m.key, m.value, m.step) for m in metrics]))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(mlflow, "MlflowClient", server.client)
    monkeypatch.setattr(live, "EVERY", 1e-3)
    monkeypatch.setattr(live, "AT_THE_END", 60)
    return server


def trained(key: str, *steps: int, begins: bool = True) -> None:
    with Live("http://127.0.0.1:5000", key, begins) as shown:
        for step in steps:
            shown.add({"step": step, "loss": step / 2, "kappa": None})


def test_each_point_arrives_once_and_in_order(server: Server) -> None:
    trained("digits/arm", *range(1500))
    sent = [metric for _, batch in server.batches for metric in batch]
    assert sent == [("loss", step / 2, step) for step in range(1500)]
    assert all(len(batch) <= live.BATCH for _, batch in server.batches)
    assert server.ended == ["run 0"]


def test_a_later_stage_goes_on_with_the_run_and_a_new_training_replaces_it(server: Server) -> None:
    trained("digits/arm", 1)
    trained("digits/other", 1)
    trained("digits/arm", 2, begins=False)
    assert [run for run, _ in server.batches] == ["run 0", "run 1", "run 0"]
    trained("digits/arm", 1)
    assert server.runs == {"run 1": "digits/other", "run 2": "digits/arm"}


def test_points_wait_for_a_server_that_comes_back(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.gone = 2
    shown = Live("http://127.0.0.1:5000", "digits/arm", begins=True)
    shown.thread = Namespace(ident=1)  # the sending is done here, in turn
    for step in (1, 2, 3):
        shown.add({"step": step, "loss": 0.5})
        shown._send()
    assert [batch for _, batch in server.batches] == [[("loss", 0.5, step) for step in (1, 2, 3)]]
    [said] = caplog.messages
    assert said == "no curve on http://127.0.0.1:5000: refused; the training goes on"


def test_a_server_that_is_gone_for_good_ends_no_training(server: Server) -> None:
    server.gone = 10**9
    trained("digits/arm", 1, 2)
    assert server.batches == []


def test_without_an_address_no_thread_starts() -> None:
    with Live(None, "digits/arm", begins=True) as shown:
        shown.add({"step": 1, "loss": 0.5})
    assert shown.thread.ident is None and not shown.waiting
