"""Snakemake as a reader starts it, in a folder of its own: what it says, what it plans, and what it runs meanwhile."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
from processes import in_a_fork

ROOT = Path(__file__).parents[1]
PATIENCE = 600  # seconds: what has not happened by then, on the slowest of machines, never will


def copy_sources(folder: Path) -> Path:
    """The workflow and the package in a folder where they can be changed, and don't change by themselves."""
    for name in ("entpruner", "params", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")
    return folder


def job(rule: str, settings: Mapping[str, Any], **paths: Path | list[Path]) -> list[str]:
    """The arguments that a rule's job gives ``entpruner``."""
    given = [text for option, path in paths.items() for text in (f"--{option}", *listed(path))]
    return ["rule", rule, "--settings", json.dumps(settings), *given]


def listed(path: Path | list[Path]) -> list[str]:
    return [str(one) for one in (path if isinstance(path, list) else [path])]


def command(folder: Path, *arguments: str, house: Path = ROOT, warm: bool = False) -> list[str]:
    """Snakemake's command line; ``warm``: its jobs are run by a process that has loaded the libraries."""
    program = [str(Path(sys.executable).parent / "snakemake")]
    if warm:
        program = [sys.executable, "-P", "-m", "entpruner.cli", "warm", "--", *program]
    where = ["--snakefile", str(house / "Snakefile"), "--directory", str(folder)]
    return [*program, *arguments, *where, "--cores", "2"]


def environment(house: Path = ROOT, **more: str) -> dict[str, str]:
    """Nothing of the environment that the tests run in but where programs are; jobs import the package of ``house``."""
    home = os.environ.get("HOME", "/")
    return {"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", **more}


def snakemake(
    folder: Path,
    *arguments: str,
    house: Path = ROOT,
    succeeds: bool = True,
    warm: bool = False,
    before: Callable[[], None] | None = None,
    **more: str,
) -> str:
    """What Snakemake prints, both streams together.

    It runs in a fork of this process, which has loaded its libraries once for all: but not with a warm process for its
    jobs, nor with something to do ``before``, which are of a program's start.
    """
    line, given = command(folder, *arguments, house=house, warm=warm), environment(house, **more)
    with TemporaryFile("w+") as said:
        if warm or before:
            streams = {"stdout": said, "stderr": said}
            code = subprocess.run(line, env=given, preexec_fn=before, check=False, **streams).returncode
        else:
            code = snakemake_in_a_fork(line, given, house, said.fileno())
        said.seek(0)
        output = said.read()
    assert (code == 0) == succeeds, output
    return output


def snakemake_in_a_fork(line: list[str], given: Mapping[str, str], house: Path = ROOT, said: int = 1) -> int:
    """The exit code of its command line in this environment; what it prints goes to the file descriptor ``said``."""
    main = loaded_snakemake()

    def become() -> None:
        enter(house, given, said)
        sys.argv = line
        main()

    return in_a_fork(become)


@cache
def loaded_snakemake() -> Callable[[], Any]:
    """Snakemake's main function. Afterwards this process has imported and computed what every start needs."""
    from snakemake.cli import main

    import entpruner.planning.needs  # noqa: F401
    from entpruner.rules import RULES
    from entpruner.system.provenance import code_digest

    for rule in RULES.values():
        code_digest(rule.module)
    # On import Snakemake keeps the stream of the moment, which is a closed one if a test captured it.
    sys.modules["snakemake.shell"].STDOUT = None  # type: ignore[attr-defined]
    return main


def enter(house: Path, given: Mapping[str, str], said: int) -> None:
    """In a fork: be a process of this environment that imports the package of ``house``, and prints to ``said``."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    os.environ.clear()
    os.environ.update(given)
    sys.path.insert(0, str(house))
    if house != ROOT:
        for name in [name for name in sys.modules if name.partition(".")[0] == "entpruner"]:
            del sys.modules[name]


def planned(output: str) -> dict[str, int]:
    """Jobs by rule, from the table that Snakemake prints before it starts."""
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:\n")[1].split("\n\n")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {rule: count for rule, count in jobs.items() if rule not in ("all", "total")}


# ---------------------------------------------------------------------------------------------- while something runs


def heed_ctrl_c() -> None:
    """In a child: a shell starts its background jobs, and so these tests, deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], Any], within: subprocess.Popen | None = None) -> None:
    """Until it holds, which it must before the process ``within`` ends."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until and (within is None or within.poll() is None)
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it may end between two questions, so only one is asked
        return True


def steps(out: Path) -> int:
    """Steps of the last checkpoint of the training that makes the folder ``out``; 0 if there is none."""
    checkpoints = out.with_name(out.name + ".resume").glob("step-" + "[0-9]" * 8)
    return max((int(path.name[-8:]) for path in checkpoints), default=0)


def checkpoint_after(step: int, out: Path, workflow: subprocess.Popen) -> int:
    """Wait for a checkpoint of more steps, and return how many."""
    wait_for(lambda: steps(out) > step or (out / "model.safetensors").exists(), workflow)
    found = steps(out)
    assert found > step, "the training ended before it could be broken off"
    return found


def commands(workflow: psutil.Process | subprocess.Popen, name: str) -> list[psutil.Process]:
    """The processes below a workflow that run an ``entpruner`` command of this name."""
    found = []
    for child in psutil.Process(workflow.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if name in child.cmdline():
                found.append(child)
    return found
