"""A study, its undisturbed run, and what another run must agree with to the bit."""

import csv
import hashlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from snakemake_runs import ROOT, command, environment

MEASURED = {"timing", "seconds", "images_per_second"}
"""Keys of JSON documents whose values are times, or follow from times."""
TIMES = ("*timing.json", "cost/*", "logs/*", "*.checksums", "tracking.json")
"""Files that hold times, or follow from when something ran."""
OF_TIMES = ("tables/*", "figures/distance_vs_ratio.*", "index.html", "headline.txt")
"""Files whose content follows from times that another command has measured."""
SHOWN = 3
"""How many names of files a line lists."""


class Job(NamedTuple):
    """A job of a study."""

    rule: str
    arguments: list[str]
    """Of ``entpruner``."""
    inputs: list[str]
    outputs: list[str]


class Study(NamedTuple):
    """A params file, and where its results lie in the folder of a run."""

    params: Path
    results: Path

    def start(self, folder: Path, *arguments: str, warm: bool = True) -> list[str]:
        return command(folder, *arguments, "--configfile", str(self.params), warm=warm)


SMOKE = Study(ROOT / "params/smoke.yaml", Path("results/smoke"))
LISTED = "--detailed-summary"
"""The option with which Snakemake lists all files, and the jobs that make them."""


def jobs_in(listing: str) -> list[Job]:
    """The jobs that Snakemake lists."""
    found: dict[str, Job] = {}
    for row in csv.DictReader(
        [line for line in listing.splitlines() if "\t" in line], delimiter="\t", quoting=csv.QUOTE_NONE
    ):
        _, *arguments = shlex.split(row["shellcmd"].partition(" &> ")[0])
        job = Job(row["rule"], arguments, row["input-file(s)"].split(","), [])
        found.setdefault(row["shellcmd"], job).outputs.append(row["output_file"])
    return list(found.values())


def jobs(folder: Path) -> list[Job]:
    """The jobs of the smoke study and of its audit, whose finished run lies in ``folder``."""
    line = SMOKE.start(folder, "all", "audit", LISTED, warm=False)
    return jobs_in(subprocess.run(line, env=environment(), check=True, stdout=subprocess.PIPE, text=True).stdout)


def code() -> str:
    """A digest of all that the trials of the smoke study run."""
    digest = hashlib.sha256(SMOKE.params.read_bytes())
    for folder in ("entpruner", "workflow"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".smk", ".html", ".yaml") or file.name == "Snakefile":
                digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def undisturbed(folder: Path) -> Path:
    """The folder of a run of the smoke study and its audit to which nothing happened; made if it is not there.

    ``bits.json`` beside it says what the run left without the audit.
    """
    made, partial = folder / "undisturbed", folder / "undisturbed.partial"
    if not made.exists():
        print("an undisturbed run of the smoke study and its audit, once", flush=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with TemporaryDirectory() as temporary, (folder / "undisturbed.log").open("w") as log:
            given = {"env": environment(TMPDIR=temporary), "check": True, "stdout": log, "stderr": log}
            subprocess.run(SMOKE.start(partial, "all"), **given)
            (folder / "bits.json").write_text(json.dumps(bits(partial / SMOKE.results, TIMES + OF_TIMES), indent=1))
            subprocess.run(SMOKE.start(partial, "audit"), **given)
        partial.rename(made)
    return made


def bits(results: Path, but: Sequence[str] = TIMES) -> dict[str, str]:
    """By file, a digest of its content, for all files of a study whose names don't match these patterns."""
    found = {}
    for file in sorted(results.rglob("*")):
        name = file.relative_to(results)
        if file.is_file() and not any(fnmatchcase(str(name), pattern) for pattern in but):
            found[str(name)] = digest(file)
    return found


def digest(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix in (".json", ".jsonl"):
        documents = [content] if file.suffix == ".json" else content.splitlines()
        content = json.dumps([without_times(json.loads(document)) for document in documents]).encode()
    return hashlib.sha256(content).hexdigest()


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in MEASURED}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def temporary(folder: Path) -> list[Path]:
    """What is left among temporary files.

    Without what is no command's: a folder that PyTorch keeps there, one a user, and the file of four bytes with which
    Python tries whether it may write there.
    """
    of_python = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size <= len("blat")]
    return [path for path in folder.iterdir() if path not in of_python and not path.name.startswith("torchinductor_")]


def said(names: Iterable[object], what: str) -> str:
    """That so many names are something, and the first ones; nothing if there are none."""
    listed = [*map(str, names)]
    more = f" and {len(listed) - SHOWN} more" * (len(listed) > SHOWN)
    return f"; {', '.join(listed[:SHOWN])}{more}: {what}" if listed else ""
