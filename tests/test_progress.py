import io

import pytest

from entpruner.system.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_is_rewritten_with_step_loss_speed_and_time_left():
    terminal, clock = Terminal(), Clock()
    with Progress(100, 500, batch_size=32, stream=terminal, clock=clock) as progress:
        clock.now = 2.0
        progress.update(110, None)
        clock.now = 20.0
        progress.update(200, 0.123456)
    first, second = terminal.getvalue().removeprefix("\r").removesuffix("\n").split("\r")
    assert first == "step 110/500  160 images/s  0:01:18 left\x1b[K"
    assert second == "step 200/500  loss 0.1235  160 images/s  0:01:00 left\x1b[K"


def test_a_line_of_the_log_stands_alone():
    terminal, clock = Terminal(), Clock()
    with Progress(0, 4, batch_size=1, unit="draw", stream=terminal, clock=clock) as progress:
        clock.now = 1.0
        progress.update(2, None)
        progress.clear()
        terminal.write("saved\n")
        clock.now = 2.0
        progress.update(4, None)
    shown = [line.rpartition("\r")[2] for line in terminal.getvalue().split("\n")[:-1]]
    assert shown == ["\x1b[Ksaved", "draw 4/4  2 images/s  0:00:00 left\x1b[K"]


def test_the_line_is_not_rewritten_more_often_than_a_reader_can_see():
    terminal, clock = Terminal(), Clock()
    with Progress(0, 1000, batch_size=1, stream=terminal, clock=clock) as progress:
        for step in range(1, 1001):
            clock.now = step / 1000
            progress.update(step, None)
    assert 4 <= terminal.getvalue().count("\r") <= 6
    assert "step 1000/1000" in terminal.getvalue()


def test_silent_where_the_stream_is_no_terminal():
    stream = io.StringIO()
    with Progress(0, 1, batch_size=1, stream=stream) as progress:
        progress.update(1, 0.5)
    assert stream.getvalue() == ""


def test_an_error_leaves_the_line_whole_and_passes_on():
    terminal, clock = Terminal(), Clock()
    with pytest.raises(KeyError), Progress(0, 9, batch_size=1, stream=terminal, clock=clock) as progress:
        clock.now = 1.0
        progress.update(3, None)
        raise KeyError
    assert terminal.getvalue().endswith("left\x1b[K\n")
