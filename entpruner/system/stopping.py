"""A polite request to stop: SIGTERM, which long work heeds where it has just kept what it did."""

import signal
import threading
from types import TracebackType
from typing import Any, Self


class StopRequest:
    """Within the block, SIGTERM no longer ends the process but sets ``made``; not so where it isn't ``heeded``, nor
    outside the main thread, where Python lets nobody.

    It is what SLURM sends before a time limit and at a preemption, and a system that shuts down.
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
