"""Single commands that end at one of their file-system events, in a fork of a process that has loaded the libraries.

The second start of the same command, over all that the first one left, must end with the bits of an undisturbed run.
"""

import errno
import os
import random
import shutil
import signal
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from processes import in_a_fork

from chaos.study import Job, bits, said, temporary
from entpruner.cli import main
from entpruner.layout import CHECKSUMS
from entpruner.rules import RULES
from entpruner.system.provenance import code_digest

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "hangup": signal.SIGHUP}
WAYS = (*SIGNALS, "full")
"""What may happen at an event: a signal, or a disk that is full from then on."""


class Events:
    """Counts the file-system events of this process within some folders, and has something happen at one of them.

    An event is what changes files: to open one for writing, to rename, to delete, to make a folder, to sync. It happens
    before the event does.
    """

    def __init__(self, *folders: Path, way: str = "", at: int = 0) -> None:
        self.folders, self.way, self.at, self.count = tuple(map(str, folders)), way, at, 0
        sync = os.fsync
        os.fsync = lambda descriptor: (self.happened("fsync"), sync(descriptor))[1]  # it is no audited event
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if (not opened and event not in EVENTS) or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if os.path.realpath(os.fsdecode(arguments[0])).startswith(self.folders):
            self.happened(event)

    def happened(self, event: str) -> None:
        self.count += 1
        if self.way in SIGNALS and self.count == self.at:
            os.kill(os.getpid(), SIGNALS[self.way])
        if self.way == "full" and self.count >= self.at and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Place:
    """A folder with the inputs of every command, in which one after the other is tried."""

    def __init__(self, undisturbed: Path, results: Path, folder: Path) -> None:
        """``undisturbed`` is the folder of a finished run, and ``results`` lies in it."""
        shutil.rmtree(folder, ignore_errors=True)
        self.results, self.undisturbed, self.expected = results, undisturbed, bits(undisturbed / results)
        self.folder, self.temporary, self.said = folder / "run", folder / "temporary", folder / "said"
        shutil.copytree(undisturbed / results, self.folder / results)
        self.temporary.mkdir()
        load()

    def without(self, job: Job) -> None:
        """Delete what a job makes, and what is left of an earlier trial, as Snakemake does before it runs a job."""
        for output in map(Path, job.outputs):
            (self.folder / output).unlink(missing_ok=True)
        for left in self.left():
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    def left(self) -> list[Path]:
        """What only a command at work may leave: half-written files, checkpoints, and temporary files."""
        unfinished = [path for suffix in (".partial", ".resume") for path in self.folder.rglob(f"*{suffix}")]
        return [*unfinished, *temporary(self.temporary)]

    def run(self, job: Job, way: str = "", at: int = 0) -> tuple[int, int]:
        """The exit code of a job's command, less than zero for a signal, and the number of its events."""
        counted = self.folder.with_name("counted")

        def work() -> None:
            self.enter()
            events = Events(self.folder, self.temporary, way=way, at=at)
            try:
                code = main(job.arguments)
            finally:
                counted.write_text(str(events.count))
            sys.exit(code)

        counted.write_text("0")
        code = in_a_fork(work)
        return code, int(counted.read_text())

    def restore(self, job: Job) -> None:
        """Make what a job makes as it was, with the checksums of its folders."""
        for output in {*map(Path, job.outputs), *(Path(output).parent / CHECKSUMS for output in job.outputs)}:
            shutil.copy2(self.undisturbed / output, self.folder / output)
        for left in self.left():
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    def enter(self) -> None:
        """In a fork: be a process that starts here."""
        stream = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        os.chdir(self.folder)
        os.environ["TMPDIR"], tempfile.tempdir = str(self.temporary), None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def wrong(self, job: Job, whole: bool) -> str:
        """How a job's outputs are not those of an undisturbed run; they may be missing where it is not ``whole``."""
        names = {str(Path(output).relative_to(self.results)) for output in job.outputs}
        try:
            found = bits(self.folder / self.results)
        except ValueError as error:
            return f"a file is not whole: {error}"
        other = sorted(name for name in names & found.keys() if found[name] != self.expected[name])
        missing = sorted(name for name in names if whole and not (self.folder / self.results / name).exists())
        return said(other, "other bits") + said(missing, "missing")


@cache
def load() -> None:
    """Import what commands need, and compute the digests of their code, once for all forks."""
    for rule in RULES.values():
        if rule.warm:
            import_module(rule.module)
            code_digest(rule.module)
    import_module("entpruner.cli.rule")


def end_early(
    place: Place, jobs: list[Job], counts: dict[str, int], random_: random.Random, way: str
) -> tuple[str, str, str]:
    """One trial: the way, which job it met where, and what is wrong then (nothing, if it survived)."""
    rule = random_.choice(sorted({job.rule for job in jobs if RULES[job.rule].warm}))
    job = random_.choice([job for job in jobs if job.rule == rule])
    place.without(job)
    key = job.outputs[0]
    if key not in counts:
        code, counts[key] = place.run(job)
        if wrong := place.wrong(job, whole=True) or (code and f"; exit code {code}"):
            place.restore(job)
            return "a command undisturbed", key, f"{wrong}: {place.said.read_text()}"
        place.without(job)
    at = random_.randint(1, counts[key])
    place.run(job, way, at)
    wrong, heard = place.wrong(job, whole=False), place.said.read_text()
    if "Traceback" in heard and way == "full":
        wrong += f"; a traceback: {heard}"
    code, _ = place.run(job)
    if code:
        wrong += f"; the second start ended with {code}: {place.said.read_text()}"
    wrong += place.wrong(job, whole=True) + said(place.left(), "left over")
    place.restore(job)  # what it measured, others read, and tables show it
    return f"a command: {way}", f"event {at} of {counts[key]} of {key}", wrong.removeprefix("; ")
