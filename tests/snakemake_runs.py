"""Snakemake as a reader starts it, in a folder of its own: what it says and what it plans."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_sources(folder: Path) -> Path:
    """The workflow and the package in a folder where they can be changed, and don't change by themselves."""
    for name in ("entpruner", "params", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")
    return folder


def command(folder: Path, *arguments: str, house: Path = ROOT) -> list[str]:
    program = str(Path(sys.executable).parent / "snakemake")
    short = ["--max-jobs-per-timespan", "100/1s"]  # with the profile's 5 s a run of few jobs waits that long at its end
    where = ["--snakefile", str(house / "Snakefile"), "--directory", str(folder)]
    return [program, *arguments, *where, "--cores", "2", *short]


def environment(house: Path = ROOT, **more: str) -> dict[str, str]:
    """Nothing of the environment that the tests run in but where programs are; jobs import the package of ``house``."""
    home = os.environ.get("HOME", "/")
    return {"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", **more}


def snakemake(
    folder: Path,
    *arguments: str,
    house: Path = ROOT,
    succeeds: bool = True,
    before: Callable[[], None] | None = None,
    **more: str,
) -> str:
    """What Snakemake prints, both streams together."""
    run = subprocess.run(
        command(folder, *arguments, house=house),
        env=environment(house, **more),
        preexec_fn=before,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (run.returncode == 0) == succeeds, run.stdout
    return run.stdout


def planned(output: str) -> dict[str, int]:
    """Jobs by rule, from the table that Snakemake prints before it starts."""
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:\n")[1].split("\n\n")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {rule: count for rule, count in jobs.items() if rule not in ("all", "total")}
