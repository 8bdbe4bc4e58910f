"""Whole runs of the smoke study that are broken off several times, and must end with the bits of an undisturbed run."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from processes import in_a_fork
from snakemake_runs import environment, gone, heed_ctrl_c

from chaos.study import OF_TIMES, SMOKE, TIMES, bits, said, temporary

MARK = "ENTPRUNER_CHAOS"
"""An environment variable of all processes of a run, by which they are found wherever they hang in the tree."""
LONGEST = 3600  # seconds of a run on a machine that does other things, too
ENDING = 30  # seconds that processes have to end after what started them has ended
DAY = 86_400
STOPS = {"interrupt": signal.SIGINT, "hangup": signal.SIGHUP, "terminate": signal.SIGTERM}
OF_LOGGING = re.compile(r"^--- Logging error ---$.*?^Arguments: [^\n]*$", re.DOTALL | re.MULTILINE)
"""What Python prints when Snakemake cannot write to its own log any more."""
WAYS = ("kill", "kill Snakemake", "kill a job", "kill the warm process", *STOPS, "clock", "two at once")


class Run:
    """A run of the study in a folder of its own, which is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder / "run", folder / "temporary"
        self.results, self.log = self.folder / SMOKE.results, folder / "log"
        self.kill(self.processes())  # of a trial that was itself killed
        for made in (self.folder, self.temporary):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.process: subprocess.Popen | None = None

    def start(self) -> subprocess.Popen:
        line = SMOKE.start(self.folder)
        given = environment(TMPDIR=str(self.temporary), **{MARK: str(self.folder)})
        with self.log.open("a") as log:
            streams = {"stdout": log, "stderr": log, "preexec_fn": heed_ctrl_c, "start_new_session": True}
            return subprocess.Popen(line, env=given, cwd=self.folder, **streams)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def files(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self.results))

    def goes_on_until(self, files: int, delay: float) -> bool:
        """Start it, unless it is running, and wait until there are so many files; False if it ended before."""
        self.process = self.process or self.start()
        while self.files() < files and self.process.poll() is None:
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(delay)
        return self.process.poll() is None

    def end(self) -> str:
        """Let it run to its end, again if a job was killed too often; what it said, if that failed."""
        for _ in range(2):
            self.process = self.process or self.start()
            code, self.process = self.process.wait(LONGEST), None
            if code == 0:
                return ""
        return f"it ended with {code}: {self.log.read_text()[-2000:]}"

    def orphans(self, of: Sequence[psutil.Process]) -> str:
        """Which of these processes outlive the run, and are killed now."""
        until = time.monotonic() + ENDING
        while any(not gone(process.pid) for process in of) and time.monotonic() < until:
            time.sleep(0.05)
        left = [process for process in of if not gone(process.pid)]
        names = [" ".join(cmdline(process))[:100] for process in left]
        self.kill(left)
        return said(names, "an orphan")

    @staticmethod
    def kill(processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.Error):
                process.kill()

    def broken(self, way: str, random_: random.Random) -> str:
        """Break the run off, or disturb it; what is wrong right afterwards."""
        assert self.process is not None
        running, before = self.process, self.processes()
        if way in ("kill", "clock"):
            self.kill(random_.sample(before, len(before)))
        elif way == "kill Snakemake":
            running.kill()
        elif way == "kill a job":
            jobs = [process for process in before if "rule" in cmdline(process)]
            self.kill(random_.sample(jobs, min(1, len(jobs))))
            return ""
        elif way == "kill the warm process":
            self.kill([process for process in before if process.pid != running.pid and leads(process)])
            return ""
        elif way == "two at once":
            second = self.start()
            code = second.wait(LONGEST)
            if code == 0 and running.poll() is None:
                return "; the second run ended with 0 beside the first"
            return ""
        else:
            stop = running.send_signal if way == "terminate" else lambda number: os.killpg(running.pid, number)
            stop(STOPS[way])
        code, self.process = running.wait(LONGEST), None
        if way == "kill Snakemake":
            self.process = self.start()  # at once, beside what may be left of the first
            wrong = self.orphans(before)
        else:
            wrong = self.orphans([*before, *self.processes()])
        if way == "clock":
            jump(self.folder, random_.choice((-DAY, DAY)))
        return wrong + ("; it ended with 0" if code == 0 and way in STOPS and self.unfinished() else "")

    def unfinished(self) -> bool:
        return not (self.results / "tracking.json").exists()

    def left(self) -> Iterator[Path]:
        """What a finished run must not leave behind."""
        for suffix in (".partial", ".resume"):
            yield from self.results.rglob(f"*{suffix}")
        yield from temporary(self.temporary)
        yield from (self.folder / ".snakemake/locks").glob("*")

    def wrong(self, expected: dict[str, str]) -> str:
        """What is wrong with a finished run."""
        found = bits(self.results, TIMES + OF_TIMES)
        other = sorted(name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name))
        wrong = said(other, "other bits, missing or not expected") + said(self.left(), "left over")
        heard = self.log.with_name("doctor")
        if in_a_fork(lambda: self.examine(heard)):
            wrong += f"; the doctor says: {heard.read_text()}"
        return wrong

    def examine(self, heard: Path) -> None:
        from entpruner.cli import main

        stream = os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        os.chdir(self.folder)
        os.environ["TMPDIR"] = str(self.temporary)
        sys.exit(main(["doctor", str(SMOKE.results)]))


def leads(process: psutil.Process) -> bool:
    """Whether it leads a session of its own, as the run and its warm process do."""
    with suppress(ProcessLookupError):
        return os.getsid(process.pid) == process.pid
    return False


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def jump(folder: Path, seconds: int) -> None:
    """Move the times of all files, as a clock does that jumps between two runs."""
    for file in folder.rglob("*"):
        stat = file.lstat()
        times = (stat.st_atime_ns + seconds * 10**9, stat.st_mtime_ns + seconds * 10**9)
        os.utime(file, ns=times, follow_symlinks=False)


def break_off(
    folder: Path, expected: dict[str, str], random_: random.Random, ways: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """One run that is broken off in all of these ways: each way, when it was, and what is wrong (nothing: survived)."""
    run, tries = Run(folder), []
    moments = sorted(random_.randint(0, len(expected)) for _ in ways)
    for way, files in zip(ways, moments, strict=True):
        delay = random_.uniform(0, 2)
        if not run.goes_on_until(files, delay):
            if run.process is not None and run.process.wait() == 0:
                break  # it was done before
            run.process = None
            continue
        tries.append((way, f"{delay:.2f} s after file {files}", run.broken(way, random_)))
    wrong = run.end() or run.wrong(expected)
    wrong += run.orphans(run.processes())
    for way, when, at_once in tries:
        yield f"a whole run: {way}", when, (at_once + wrong).removeprefix("; ")
    if wrong:
        folder.rename(folder.with_name(f"lost-{time.strftime('%d-%H%M%S')}"))  # to be looked at


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of so many megabytes at a folder. Raises CalledProcessError without the right to mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "entpruner", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_disk(folder: Path, expected: dict[str, str], random_: random.Random) -> tuple[str, str, str]:
    """One run on a disk that is too small, and goes on after room was made: what is wrong then."""
    megabytes = random_.randint(3, 10)
    with small_disk(folder / "run", megabytes):
        run = Run(folder)
        code = run.start().wait(LONGEST)
        told, wrong = run.log.read_text(), run.orphans(run.processes())
        if code == 0:
            wrong += "; it ended with 0 on a disk that is too small"
        if "Traceback" in OF_LOGGING.sub("", told):
            wrong += f"; a traceback: {told[-2000:]}"
        subprocess.run(["mount", "-o", "remount,size=1g", str(run.folder)], check=True)
        wrong += run.end() or run.wrong(expected)
    return "a whole run: disk full", f"at {megabytes} MB", wrong.removeprefix("; ")
