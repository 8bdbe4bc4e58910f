"""A request to stop: long work heeds SIGTERM as soon as it has saved what it did."""

import signal
import threading
from types import TracebackType
from typing import Any, Self


class StopRequest:
    """Within the block, SIGTERM does not end the process but sets ``made``.

    SIGTERM ends the process as usual if it is not ``heeded``, and outside the main thread, where Python forbids to
    handle signals. SLURM sends it before a time limit and at a preemption, and a system that shuts down sends it too.
    """

    def __init__(self, heeded: bool = True) -> None:
        self.heeded = heeded and threading.current_thread() is threading.main_thread()
        self.made = False

    def __enter__(self) -> Self:
        if self.heeded:
            self.before = signal.signal(signal.SIGTERM, self.make)
        return self

    def make(self, *_: Any) -> None:
        self.made = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.heeded:
            signal.signal(signal.SIGTERM, self.before)
