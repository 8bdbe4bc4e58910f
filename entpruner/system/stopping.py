"""A request to stop: long work ends after SIGTERM as soon as it has saved what it did."""

import signal
import threading
from types import TracebackType
from typing import Any, Self


class StopRequest:
    """Within the block, SIGTERM does not end the process. It sets ``made`` instead.

    SIGTERM ends the process as usual if ``heeded`` is False, and outside the main thread, where Python cannot handle
    signals. SLURM sends SIGTERM before a time limit and before a preemption, and so does a system that shuts down.
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
