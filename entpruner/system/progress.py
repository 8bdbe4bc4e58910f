"""One line on the terminal that says how a training, scoring or sampling is getting on."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO

from entpruner.system import parallel

REFRESH = 0.2  # seconds between two rewrites of the line


class Progress:
    """Rewrites one line with the steps (or whatever ``unit`` is) that are done, loss, images per second and time left.

    Silent where ``stream`` is no terminal, and in all processes but the first.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        batch_size: int,
        unit: str = "step",
        stream: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.start, self.stop, self.batch_size, self.unit = start, stop, batch_size, unit
        self.stream, self.clock = stream, clock
        self.visible = stream.isatty() and parallel.is_first()
        self.began = self.shown = clock()

    def update(self, step: int, loss: float | None) -> None:
        """``step`` steps are done; ``loss`` is the curve's last one, None before the first."""
        now = self.clock()
        if not self.visible or (now - self.shown < REFRESH and step < self.stop):
            return
        self.shown = now
        rate = (step - self.start) / max(now - self.began, 1e-9)  # steps per second
        left = timedelta(seconds=round((self.stop - step) / rate))
        loss_text = "" if loss is None else f"  loss {loss:.4f}"
        line = f"{self.unit} {step}/{self.stop}{loss_text}  {rate * self.batch_size:.0f} images/s  {left} left"
        self.stream.write(f"\r{line}\x1b[K")  # rewrite, then clear the line's old end
        self.stream.flush()

    def clear(self) -> None:
        """Make room for a line of the log; the next update comes below it."""
        if self.visible:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.visible:
            self.stream.write("\n")
