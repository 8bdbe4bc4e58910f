import io
import logging

import pytest

from entpruner.system import parallel
from entpruner.system.progress import Progress
from entpruner.system.study_line import StudyLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What tqdm takes for the time; set its one number."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_one_line_is_rewritten_with_step_loss_speed_and_time_left(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress(100, 500, batch_size=32, stream=terminal) as progress:
        clock[0] = 2.0
        progress.update(10)
        clock[0] = 20.0
        progress.set_postfix_str("loss 0.1235", refresh=False)
        progress.update(90)
    shown = terminal.getvalue().removesuffix("\n").split("\r")
    assert shown[2].rstrip() == "step 110/500, 160 images/s, 01:18 left"
    assert shown[3].rstrip() == shown[-1] == "step 200/500, loss 0.1235, 160 images/s, 01:00 left"


def test_a_line_of_the_log_stands_alone(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress(0, 4, batch_size=1, unit="draw", stream=terminal) as progress:
        clock[0] = 1.0
        progress.update(2)
        progress.clear()
        terminal.write("saved\n")
        clock[0] = 2.0
        progress.update(2)
    shown = [line.rpartition("\r")[2] for line in terminal.getvalue().split("\n")[:-1]]
    assert shown == ["saved", "draw 4/4, 2 images/s, 00:00 left"]


def test_the_line_is_not_rewritten_more_often_than_a_reader_can_see(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress(0, 1000, batch_size=1, stream=terminal) as progress:
        for step in range(1, 1001):
            clock[0] = step / 1000
            progress.update()
    assert 4 <= terminal.getvalue().count("\r") <= 7
    assert "step 1000/1000" in terminal.getvalue()


@pytest.mark.parametrize(("stream", "is_first"), [(io.StringIO(), True), (Terminal(), False)])
def test_silent_where_the_stream_is_no_terminal_and_in_other_processes(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, is_first: bool
) -> None:
    monkeypatch.setattr(parallel, "is_first", lambda: is_first)
    with Progress(0, 1, batch_size=1, stream=stream) as progress:
        progress.set_postfix_str("loss 0.5", refresh=False)
        progress.update()
        progress.clear()
    assert stream.getvalue() == ""


def test_an_error_leaves_the_line_whole_and_passes_on(clock: list[float]) -> None:
    terminal = Terminal()
    with pytest.raises(KeyError), Progress(0, 9, batch_size=1, stream=terminal) as progress:
        clock[0] = 1.0
        progress.update(3)
        raise KeyError
    assert terminal.getvalue().endswith("step 3/9, 3 images/s, 00:02 left\n")


def record(message: str = "", **told: int) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.INFO, "", 0, message, None, None)
    vars(made).update(told)
    return made


def test_a_workflow_has_one_line_below_its_messages(clock: list[float]) -> None:
    terminal = Terminal()
    line = StudyLine(logging.StreamHandler(terminal), terminal)
    line.handle(record("begun"))
    clock[0] = 60.0
    line.handle(record(done=1, total=4))
    line.handle(record("ended"))
    shown = [text.rpartition("\r")[2] for text in terminal.getvalue().split("\n")]
    assert shown == ["begun", "ended", "1 of 4 jobs, 01:00 so far, 03:00 left"]
    line.close()
    assert terminal.getvalue().endswith("\r")  # the line is gone


def test_the_line_stands_in_for_what_a_log_shows_on_terminals_until_the_end() -> None:
    on_terminal, in_file = logging.StreamHandler(Terminal()), logging.StreamHandler(io.StringIO())
    vars(on_terminal)["is_tty"], vars(in_file)["is_tty"] = True, False  # as Snakemake's handlers say
    log = logging.Logger("workflow")
    log.handlers = [on_terminal, in_file]
    StudyLine.begin(log)
    line = log.handlers[1]
    assert isinstance(line, StudyLine) and line.shown is on_terminal and log.handlers[0] is in_file
    StudyLine.end(log)
    assert log.handlers == [in_file, on_terminal] and line.line.disable  # closed


def test_where_there_is_no_terminal_a_workflow_says_what_it_always_says() -> None:
    stream = io.StringIO()
    line = StudyLine(logging.StreamHandler(stream), stream)
    line.handle(record("1 of 4 steps (25%) done", done=1, total=4))
    assert stream.getvalue() == "1 of 4 steps (25%) done\n"
