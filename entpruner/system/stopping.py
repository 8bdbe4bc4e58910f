"""How work ends: after SIGTERM as soon as it has saved what it did, and never later than whoever started it."""

import ctypes
import signal
import sys
import threading
from types import TracebackType
from typing import Any, Self

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the system kill this process when the one that started it ends, however that ends. Linux alone can do so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def take_hangup_as_interrupt() -> None:
    """A closed terminal (SIGHUP) ends this process as Ctrl-C does, unless it was started to outlive its terminal."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


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
