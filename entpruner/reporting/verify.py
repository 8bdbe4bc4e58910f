"""``entpruner verify``: build the tables of a study again, and compare every cell with its expected value."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from entpruner.errors import UserError
from entpruner.layout import MACHINE, PUBLISHED, VERIFIED, WITHIN, Layout
from entpruner.params.files import PARAMS, REFERENCE, read_study
from entpruner.params.study import Study
from entpruner.reporting.expected import Expected
from entpruner.reporting.recorded import read_tables
from entpruner.reporting.records import TRAINED, Records, is_trained
from entpruner.reporting.tables import table_from
from entpruner.reporting.verdicts import Verdict, exit_code, report, same_files, verdicts
from entpruner.rules.report import Table
from entpruner.rules.rule import Job
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.temporary import temporary_folder

ROOT = PARAMS.parent


def verify(study: str, depth: int, *, expected: Path | None = None, tables: Path | None = None) -> int:
    """Print a verdict for every cell, and return the exit code that ``verdicts.exit_code`` describes.

    Tables are built from shipped records (depth 1), from trained networks (2) or from scratch (3). If ``tables`` is
    given, nothing is built, and the finished tables in this folder are compared. ``expected`` is the file of the
    expected values, by default params/expected/<study>.yaml. Raises UserError if nothing is published or expected of
    the study.
    """
    wanted = Expected.read(expected or PARAMS / f"expected/{study}.yaml", study)
    if tables is not None:
        found = list(verdicts(wanted, read_tables(tables)))
    else:
        found = from_shipped(wanted) if depth == 1 else from_workflow(wanted, depth)
    if found:
        print(report(study, found))
    return exit_code(found)


def published_records(study: str) -> Records:
    """The documents of a published study. Raises UserError if it is not published."""
    records = Records(Layout(study, PUBLISHED).root)
    if MACHINE not in records:
        raise UserError(f"{records.folder}: nothing published to verify; run: make publish STUDY={study}")
    return records


def published_tables(study: Study, records: Records) -> list[str]:
    """The names of the published tables, in the order of the params file."""
    paths = Layout.at(records.folder)
    return [name for name in study.tables if paths.table(name).files["csv"].exists()]


# ---------------------------------------------------------------------------------------------------------- depth one


def from_shipped(expected: Expected) -> list[Verdict]:
    """Build the tables from shipped records. The verdicts are on their cells, and on the bytes of their files."""
    records = published_records(expected.study)
    print(f"{expected.study}, depth 1: tables from shipped records; nothing is trained or measured again", flush=True)
    with temporary_folder() as built:
        build_tables(expected.study, records, built)
        return [
            *verdicts(expected, read_tables(built), shipped=True),
            *same_files(Layout.at(records.folder).tables, built),
        ]


def build_tables(name: str, records: Records, out: Path) -> None:
    """Build the published tables of a study from its published documents, into the folder ``out``.

    A table is not built if a document is missing, and a message says so.
    """
    params = PARAMS / f"{name}.yaml"
    study, rule = ResolvedStudy(read_study([params]), [params]), Table()
    for shown in published_tables(study.params, records):
        settings = rule.settings(study, Job("table", table=shown))
        try:
            table_from(records, settings, study.paths.root, REFERENCE).write(out)
        except UserError as error:
            print(f"{shown} is not built: {error}")


# ------------------------------------------------------------------------------------------------- depths two and three


def from_workflow(expected: Expected, depth: int) -> list[Verdict]:
    """Let the workflow build the tables in a separate folder. The verdicts are on their cells.

    If trained networks are missing at depth 2, a message says so, and there are no verdicts. A folder that an earlier
    call finished is deleted first, and an unfinished one is continued.
    """
    study = expected.study
    records, arms = published_records(study), Layout(study).arms
    params = read_study([PARAMS / f"{study}.yaml"])
    names = published_tables(params, records) if depth == 2 else list(params.tables)
    what = "samples, what they are worth, costs and tables, from trained networks" if depth == 2 else "all from scratch"
    print(f"{study}, depth {depth}: {what}\n{forecast(depth, records)}", flush=True)
    if depth == 2 and (missing := missing_networks(study, records)):
        print(
            f"not run: {len(missing)} trained networks are not in {arms}, as that of {missing[0]}. If "
            f"this commit has a saved run ({arms.parent}/*.dvc), this brings them: make restore STUDY={study}. "
            f"Otherwise train them (make results STUDY={study}), or verify everything (make verify DEPTH=3)."
        )
        return []
    folder = VERIFIED / f"{study}-depth{depth}"
    paths = Layout.at(folder / Layout(study).root)
    if all(paths.table(name).files["md"].exists() for name in names):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"in {folder}, which can be deleted afterwards", flush=True)
    link(depth, study, folder)
    if run(workflow(depth, study, names, folder)):
        print("Some of it failed, see above; what it left is compared:")
    return list(verdicts(expected, read_tables(paths.tables)))


def forecast(depth: int, records: Records) -> str:
    """A sentence on the time that the commands took when the study was published, and on the disk that they need."""
    machine, cores = records[MACHINE], os.cpu_count() or 1
    needed = {path: made for path, made in records.timings().items() if WITHIN.audits not in Path(path).parents}
    seconds = sum(record["seconds"] for path, record in needed.items() if depth == 3 or not is_trained(path))
    minutes, size = seconds / 60, machine["bytes"]["all" if depth == 3 else "measured"]
    return (
        f"about {minutes / cores:.1f} min on {cores} cores: {minutes:.1f} min of computing "
        f"(on {' and '.join(machine['device'])}, when published); {size / 1e6:.3g} MB on disk"
    )


def missing_networks(study: str, records: Records) -> list[str]:
    """The published arms whose trained network is not in results/<study>."""
    arms = [Path(path).parents[1].name for path in records.matching(WITHIN.final("*").files["card"])]
    return [arm for arm in arms if not Layout(study).final(arm).files["model"].exists()]


def link(depth: int, study: str, folder: Path) -> None:
    """Make links in ``folder`` to what the workflow begins with: data sets and, at depth 2, all that was trained."""
    links = [Path("data")] if Path("data").exists() else []  # params files name paths under data/
    if depth == 2:
        links += [path for pattern in TRAINED for path in Path().glob(str(Layout(study).root / pattern))]
    for path in links:
        made = folder / path
        made.parent.mkdir(parents=True, exist_ok=True)
        if not made.is_symlink():
            made.symlink_to(path.resolve())


def workflow(depth: int, study: str, tables: Sequence[str], folder: Path) -> list[str]:
    """The command by which Snakemake builds the tables in ``folder``.

    At depth 2 only the rules that measure may run, so that Snakemake does not make again what is linked.
    """
    rules = re.findall(r"^rule (\w+):", (ROOT / "workflow/rules/evaluate.smk").read_text(), re.MULTILINE)
    allowed = ["--allowed-rules", "table", *rules] if depth == 2 else []
    return [
        *(sys.executable, "-m", "entpruner.cli", "warm", "--"),  # loads torch once for hundreds of jobs
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)),
        *("--configfile", str(PARAMS / f"{study}.yaml"), "--cores", "all", "--quiet", "host", "reason", *allowed),
        *("--", *(str(Layout(study).table(table).files["md"]) for table in tables)),
    ]


def run(command: Sequence[str]) -> int:
    """Run a program and return its exit code. After Ctrl-C it ends by itself, so that Snakemake removes its lock."""
    with subprocess.Popen(command) as program:
        try:
            return program.wait()
        except KeyboardInterrupt:
            program.wait()
            raise
