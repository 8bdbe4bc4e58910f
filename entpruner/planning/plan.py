"""The plan of a study: a row a rule, as a table to read or as JSON. Snakemake itself says which jobs there are."""

import io
import logging
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from entpruner.params.files import PARAMS, read_study
from entpruner.rules import RULES
from entpruner.rules.rule import Job
from entpruner.sizes.work import Speed, Work
from entpruner.study.images import images_of
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.temporary import temporary_folder

SNAKEFILE = PARAMS.parent / "Snakefile"
HEADINGS = ("rule", "jobs", "steps", "PFLOPs", "device-hours", "longest job", "GPU memory", "disk")
NOTES = (
    "PFLOPs are 10^15 floating-point operations of matrix products. Device-hours are of one device for all jobs, one "
    "after the other. GPU memory is the hungriest job's, estimated.",
    "Not counted: downloads, reading images, nearest neighbours, distances between features, tables and figures, and "
    "what it takes to start jobs. Assumed: a vote goes one step on at every stage; the audit takes its dearest regime.",
)


class Row(NamedTuple):
    """All jobs of one rule, or several rows together."""

    rule: str
    jobs: int
    work: Work
    seconds: float
    longest: float
    """Seconds of the longest job, on all the processes that share it."""
    memory: float
    """Bytes of a GPU's memory that the hungriest job needs; 0 where none is used."""


class Plan(NamedTuple):
    study: str
    speed: Speed
    rules: tuple[Row, ...]
    audit: tuple[Row, ...]
    """What ``snakemake audit`` adds; nothing without an audit."""
    missing: tuple[str, ...]
    """Sources of images that aren't there, so that these are not counted."""
    processes: int
    """The number of devices that share a job of a rule that can be shared."""


def plan(files: Sequence[Path], speed_of: Callable[[ResolvedStudy], Speed]) -> Plan:
    """Raises UserError for params files that are wrong, and for a source of images that is damaged."""
    params = read_study(files)
    images = {name: images_of(dataset) for name, dataset in params.datasets.items()}
    study = ResolvedStudy(params, files, images)
    speed = speed_of(study)
    usual, audit = jobs_of(files, ["all", "audit"] if params.audit else ["all"])
    return Plan(
        params.study,
        speed,
        rows(study, usual, speed),
        rows(study, audit, speed),
        tuple(dict.fromkeys(known.missing for known in images.values() if known.missing)),
        params.compute.processes,
    )


def jobs_of(files: Sequence[Path], targets: Sequence[str]) -> tuple[list[Job], list[Job]]:
    """The jobs that Snakemake runs where nothing has been made yet: for the first target, and for others on top."""
    from snakemake.api import SnakemakeApi  # seconds of imports
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    logging.disable(logging.WARNING)  # Snakemake says the same again when it runs
    with temporary_folder() as empty, SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[file.resolve() for file in files]),
            snakefile=SNAKEFILE,
            workdir=Path(empty),
        )
        asked = workflow.dag(DAGSettings(targets=set(targets), forceall=True))
        with redirect_stdout(io.StringIO()):
            asked.printd3dag()  # makes Snakemake build the graph, which is read below
        dag = workflow._workflow.dag
        first, waiting = set(), [job for job in dag.jobs if job.rule.name == targets[0]]
        while waiting:
            if (job := waiting.pop()) not in first:
                first.add(job)
                # The page of the study shows the audit where both are asked for, but it is made without one as well.
                waiting += [needed for needed in dag.dependencies[job] if needed.rule.name != "audit_report"]
        made = [job for job in dag.jobs if job.rule.name in RULES]
        of = {job: Job.of(job.rule.name, dict(job.wildcards.items())) for job in made}
    logging.disable(logging.NOTSET)
    return [of[job] for job in made if job in first], [of[job] for job in made if job not in first]


def rows(study: ResolvedStudy, jobs: Iterable[Job], speed: Speed) -> tuple[Row, ...]:
    by_rule: dict[str, list[Row]] = {name: [] for name in RULES}
    for job in jobs:
        by_rule[job.rule].append(row(study, job, speed))
    return tuple(total(name, found) for name, found in by_rule.items() if found)


def row(study: ResolvedStudy, job: Job, speed: Speed) -> Row:
    """A single job."""
    rule = RULES[job.rule]
    work, needed = rule.work(study, job), rule.memory(study, job)
    processes = study.params.compute.processes if rule.shared else 1
    longest, memory = speed.seconds(work, processes), needed.total if needed else 0.0
    return Row(job.rule, 1, work, speed.seconds(work), longest, memory)


def total(name: str, parts: Sequence[Row]) -> Row:
    return Row(
        name,
        sum(row.jobs for row in parts),
        sum((row.work for row in parts), Work()),
        sum(row.seconds for row in parts),
        max(row.longest for row in parts),
        max(row.memory for row in parts),
    )


# ----------------------------------------------------------------------------------------------------- as text, as JSON


def as_text(found: Plan) -> str:
    blank = ("",) * len(HEADINGS)
    lines = [HEADINGS, blank, *map(cells, found.rules), cells(total("all", found.rules))]
    if found.audit:
        lines += [blank, ("The audit needs:", *blank[1:])]
        lines += [*map(cells, found.audit), cells(total("audit, on top", found.audit))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join([rule.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]).rstrip() for rule, *numbers in lines
    ]
    speed = found.speed
    rates = [f"{kind} {scaled(getattr(speed, kind), RATES)}" for kind in ("training", "sampling", "measuring")]
    head = [f"Study {found.study} on {speed.machine}", "FLOP/s: " + ", ".join(rates)]
    return "\n".join([*head, "", *table, "", *(textwrap.fill(note, 120) for note in notes(found))])


def notes(found: Plan) -> Iterator[str]:
    for source in found.missing:
        yield f"{source} is not here: its images are not counted."
    if found.processes > 1:
        shared = ", ".join(name for name, rule in RULES.items() if rule.shared)
        yield f"The longest job of {shared} runs on {found.processes} devices."
    if (most := found.speed.memory) is not None:
        if hungry := dict.fromkeys(row.rule for row in (*found.rules, *found.audit) if row.memory > most):
            yield f"These need more memory than such a GPU's {scaled(most, BYTES)}: {', '.join(hungry)}."
        yield "Small networks and batches reach far less of a GPU's peak than large ones: --mfu takes another share."
    yield from NOTES


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.rule,
        f"{row.jobs:,}",
        f"{row.work.steps:,.0f}" if row.work.steps else "",
        short(row.work.flops / 1e15),
        "<0.001" if 0 < row.seconds < 3.6 else short(row.seconds / 3600),
        "<0.1 s" if 0 < row.longest < 0.1 else scaled(row.longest, TIMES),
        scaled(row.memory, BYTES),
        scaled(row.work.disk, BYTES),
    )


def short(value: float) -> str:
    """Three digits, or all that stand before the point; nothing for nothing."""
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.0e}"


RATES = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6}
TIMES = {"h": 3600.0, "min": 60.0, "s": 1.0}
BYTES = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


def scaled(value: float, units: dict[str, float]) -> str:
    """A value in the largest unit that it has one of, or else in the smallest; nothing for nothing."""
    unit = next((unit for unit, size in units.items() if value >= size), list(units)[-1])
    return f"{value / units[unit]:.1f} {unit}" if value else ""


def as_json(found: Plan) -> dict[str, Any]:
    """FLOPs, seconds and bytes as they are."""

    def plain(row: Row) -> dict[str, Any]:
        return {"rule": row.rule, "jobs": row.jobs, **asdict(row.work), "flops": row.work.flops,
                "seconds": row.seconds, "longest_seconds": row.longest, "gpu_memory": row.memory}  # fmt: skip

    return {
        "study": found.study,
        "speed": found.speed._asdict(),
        "rules": [plain(row) for row in found.rules],
        "total": plain(total("all", found.rules)),
        "audit": [plain(row) for row in found.audit],
        "missing": found.missing,
        "processes": found.processes,
    }
