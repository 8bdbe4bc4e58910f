"""A run of Snakemake: what a killed one left locked is unlocked, and what cannot go on is not tried again."""

import fcntl
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from entpruner.system.files import DISK_FULL

Check = Callable[[Any, Any], Awaitable[None]]
"""A check that Snakemake makes of a job and its outputs."""


def begin_run(state: Path = Path(".snakemake")) -> int | None:
    """Say that a run is alive in this folder, by a lock that goes with its process. Returns its file descriptor.

    Where no other run is alive, Snakemake's own locks are of one that was killed, and are deleted. A file system that
    cannot lock leaves them where they are, and Snakemake says how to unlock them.
    """
    with suppress(OSError):
        state.mkdir(exist_ok=True)
        alive = os.open(state / "alive", os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(BlockingIOError):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for lock in (state / "locks").glob("*"):
                lock.unlink(missing_ok=True)
        fcntl.flock(alive, fcntl.LOCK_SH)
        return alive
    return None


def left_locked(state: Path = Path(".snakemake")) -> list[Path]:
    """Snakemake's locks in this folder, if no run is alive."""
    with suppress(OSError), (state / "alive").open("rb+") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return sorted((state / "locks").glob("*"))
    return []


def with_inputs_not_of_the_future(check: Check) -> Check:
    """What Snakemake calls to ``check`` that the outputs of a job are not older than its inputs.

    Inputs from before the clock was set back are dated like the outputs first, or the job would fail.
    """

    async def checked(job: Any, outputs: Any) -> None:
        made = [Path(file).stat().st_mtime_ns for file in map(str, outputs) if Path(file).exists()]
        for file in map(Path, map(str, job.input)):
            with suppress(OSError):
                if file.stat().st_mtime_ns > time.time_ns():
                    os.utime(file, ns=(file.stat().st_atime_ns, min(made, default=time.time_ns())))
        await check(job, outputs)

    return checked


def unless_disk_is_full(failed: Callable[[Any], None]) -> Callable[[Any], None]:
    """What Snakemake calls for a job that ``failed``. A job whose log says that the disk is full is not tried again."""

    def ended(job: Any) -> None:
        if any(DISK_FULL in log.read_text() for log in map(Path, getattr(job, "log", ())) if log.exists()):
            job.attempt = job.restart_times + 1
        failed(job)

    return ended
