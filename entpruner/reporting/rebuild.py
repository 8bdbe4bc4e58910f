"""A study's tables built once more, from as little as is asked: shipped metrics, checkpoints, or nothing at all.

It is always the workflow that builds them, in a folder of its own. What it begins from is linked there, and it is held
to the rules that may run, so that nothing that is linked is ever made again, whatever its age.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entpruner.params.files import read_study
from entpruner.reporting.machine import TRAINED, is_trained, timings
from entpruner.system.files import read_json

ROOT = Path(__file__).parents[2]
START, JOB = 4.8, 0.13  # seconds to load libraries, once, and to start a command (benchmarks/results/warm-cpu.json)


@dataclass(frozen=True)
class Depth:
    what: str
    begins_with: str | None
    """Folder of studies that it begins with; None: nothing."""
    linked: tuple[str, ...]
    """What is linked of the study's folder there. Its tables never are."""
    chapters: tuple[str, ...]
    """Whose rules may run beside ``table``; where it begins with nothing, all may."""


DEPTHS = {
    1: Depth("tables from shipped metrics", "results/published", ("*",), ()),
    2: Depth(
        "samples, what they are worth, costs and tables, from trained networks", "results", TRAINED, ("evaluate",)
    ),
    3: Depth("everything from scratch", None, (), ()),
}


@dataclass(frozen=True)
class Plan:
    """What building takes, told by the records of the published run."""

    jobs: int
    seconds: float
    """Of computing, on the machine that was published."""
    bytes: int
    device: str

    @staticmethod
    def of(depth: int, tables: Sequence[str], published: Path) -> "Plan":
        machine = read_json(published / "machine.json")
        every = {path: record for path, record in timings(published).items() if path.parts[0] != "audit"}
        measured = [record for path, record in every.items() if not is_trained(path)]
        shipped = sum(file.stat().st_size for file in published.glob("tables/*"))
        records, size = {
            1: ([], shipped),
            2: (measured, machine["bytes"]["measured"]),
            3: ([*every.values()], machine["bytes"]["all"]),
        }[depth]
        seconds = sum(record["seconds"] for record in records)
        return Plan(len(records) + len(tables), seconds, size, " and ".join(machine["device"]))

    def __str__(self) -> str:
        """About how long, without what Snakemake itself takes, and how much."""
        cores = os.cpu_count() or 1
        total = START + self.jobs * JOB + self.seconds / cores
        return (
            f"about {duration(total)} on {cores} cores: {self.jobs} jobs, {duration(self.seconds)} of computing (on "
            f"{self.device}, when published); {self.bytes / 1e6:.3g} MB on disk"
        )


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def tables_at(depth: int, study: str, params: Path) -> list[str]:
    """The tables that can be built: all of the study's, or where metrics or networks are given, those published."""
    names = list(read_study([params]).tables)
    shipped = {file.stem for file in Path("results/published", study, "tables").glob("*.csv")}
    return names if depth == 3 else [name for name in names if name in shipped]


def missing_networks(study: str) -> list[str]:
    """Arms that were published and whose trained network is not in results/<study>."""
    arms = sorted(card.parents[1].name for card in Path("results/published", study).glob("arms/*/final/model.json"))
    return [arm for arm in arms if not Path("results", study, "arms", arm, "final/model.safetensors").exists()]


def stage(depth: int, study: str, folder: Path) -> None:
    """Link what the depth begins with to ``folder``/results/<study>."""
    plan = DEPTHS[depth]
    target = folder / "results" / study
    target.mkdir(parents=True, exist_ok=True)
    if Path("data").exists() and not (folder / "data").exists():
        (folder / "data").symlink_to(Path("data").resolve())  # data sets are named from where the workflow runs
    if plan.begins_with is None:
        return
    source = Path(plan.begins_with, study)
    for path in (path for pattern in plan.linked for path in source.glob(pattern)):
        link = target / path.relative_to(source)
        if path.name != "tables" and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


def build(depth: int, study: str, params: Path, tables: Sequence[str], folder: Path) -> bool:
    """Run the workflow in ``folder`` until the tables are there; False if some of its jobs failed.

    Its output is shown as it comes; at depth 1, which takes seconds, only if something failed.
    """
    command = [sys.executable, "-m", "entpruner.cli", "warm", "--"]  # hundreds of jobs each load torch otherwise
    command += [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(params), "--cores", "all", "--quiet", "host", "reason"]
    if DEPTHS[depth].begins_with is not None:
        chapters = (ROOT / f"workflow/rules/{chapter}.smk" for chapter in DEPTHS[depth].chapters)
        rules = [rule for file in chapters for rule in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)]
        command += ["--allowed-rules", "table", *rules]
    command += ["--", *(f"results/{study}/tables/{table}.md" for table in tables)]
    code, said = run(command, quiet=depth == 1)
    if code and said:
        print(said)
    return code == 0


def run(command: Sequence[str], *, quiet: bool) -> tuple[int, str | None]:
    """Exit code, and if ``quiet`` what it said. On Ctrl-C it ends by itself: killed, it would leave a lock."""
    output = subprocess.PIPE if quiet else None
    with subprocess.Popen(command, stdout=output, stderr=output and subprocess.STDOUT, text=True) as program:
        try:
            said, _ = program.communicate()
        except KeyboardInterrupt:
            program.wait()
            raise
    return program.returncode, said
