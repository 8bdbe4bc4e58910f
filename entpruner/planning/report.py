"""The plan of a study: a row a rule, as a table to read or as JSON."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from entpruner.params.study import Study
from entpruner.planning.audit import audited
from entpruner.planning.images import images_of
from entpruner.planning.jobs import Job, audit_jobs, jobs_of
from entpruner.planning.networks import KINDS, Speed, Work
from entpruner.planning.resources import memory
from entpruner.planning.work import Planned
from entpruner.study.arms import expand
from entpruner.system.launch import SHARED

ORDER = (  # what others need comes first
    "download", "data", "autoencoder", "latents_shard", "latents",
    "classifier", "pretrain", "import_checkpoint", "adapt",
    "score", "prune", "recover", "cut", "sample", "evaluate", "cost", "table", "figure", "track",
    "audit_regime", "audit_masks", "audit_scores", "audit_choices", "audit_proxies", "audit_schedules",
    "audit_stability", "audit_report",
)  # fmt: skip
HEADINGS = ("rule", "jobs", "steps", "PFLOPs", "device-hours", "longest job", "GPU memory", "disk")
NOTES = (
    "PFLOPs are 10^15 floating-point operations of matrix products. Device-hours are of one device for all jobs, one "
    "after the other. GPU memory is the hungriest job's, estimated.",
    "Not counted: downloads, reading images, nearest neighbours, tables and figures, and what a cluster takes to start "
    "jobs. Assumed: a vote goes one step on at every stage; the audit takes its dearest regime.",
)


class Row(NamedTuple):
    """All jobs of one rule."""

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
    """What ``snakemake audit`` adds; none without an audit."""
    missing: tuple[str, ...]
    """Sources of images that aren't there, so that these are not counted."""
    processes: int
    """On how many devices jobs of the rules in ``SHARED`` run."""


def plan(study: Study, speed_of: Callable[[Planned], Speed]) -> Plan:
    """Raises UserError for a source of images that is damaged."""
    images = {name: images_of(dataset) for name, dataset in study.datasets.items()}
    planned = Planned(study, expand(study), images)
    speed = speed_of(planned)
    return Plan(
        study.study,
        speed,
        rows(planned, jobs_of(study), speed),
        rows(planned, audit_jobs(study), speed),
        tuple(dict.fromkeys(known.missing for known in images.values() if known.missing)),
        study.compute.processes,
    )


def rows(planned: Planned, jobs: Iterable[Job], speed: Speed) -> tuple[Row, ...]:
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    return tuple(row(planned, rule, by_rule[rule], speed) for rule in sorted(by_rule, key=ORDER.index))


def row(planned: Planned, rule: str, jobs: Sequence[Job], speed: Speed) -> Row:
    works = [audited(planned, job) for job in jobs]
    processes = planned.study.compute.processes if rule in SHARED else 1
    longest = max(speed.seconds(work, processes) for work in works)
    needed = [needed.total for job in jobs if (needed := memory(planned, job))]
    return Row(rule, len(jobs), sum(works, Work()), sum(map(speed.seconds, works)), longest, max(needed, default=0.0))


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
    sections = [[*found.rules, total("all", found.rules)]]
    if found.audit:
        sections.append([*found.audit, total("audit, on top", found.audit)])
    blank = ("",) * len(HEADINGS)
    lines: list[tuple[str, ...]] = [HEADINGS]
    for section in sections:
        lines += [blank, *map(cells, section)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join([rule.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]).rstrip() for rule, *numbers in lines
    ]
    head = [f"Study {found.study} on {found.speed.machine}", rates(found.speed)]
    return "\n".join([*head, "", *table, "", *(textwrap.fill(note, 120) for note in notes(found))])


def rates(speed: Speed) -> str:
    return "FLOP/s: " + ", ".join(f"{kind} {engineering(getattr(speed, kind))}" for kind in KINDS)


def notes(found: Plan) -> Iterator[str]:
    for source in found.missing:
        yield f"{source} is not here: its images are not counted."
    if found.processes > 1:
        yield f"The longest job of {', '.join(SHARED)} runs on {found.processes} devices."
    if (most := found.speed.memory) is not None:
        if hungry := dict.fromkeys(row.rule for row in (*found.rules, *found.audit) if row.memory > most):
            yield f"These need more memory than such a GPU's {size(most)}: {', '.join(hungry)}."
        yield "Small networks and batches reach far less of a GPU's peak than large ones: --mfu takes another share."
    yield from NOTES


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.rule,
        f"{row.jobs:,}",
        f"{row.work.steps:,}" if row.work.steps else "",
        short(row.work.flops / 1e15),
        hours(row.seconds),
        duration(row.longest),
        size(row.memory),
        size(row.work.disk),
    )


def short(value: float) -> str:
    """Three digits, or all that stand before the point; nothing for nothing."""
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.0e}"


def hours(seconds: float) -> str:
    return "<0.001" if 0 < seconds < 3.6 else short(seconds / 3600)


def engineering(value: float) -> str:
    """Three digits, and the unit's prefix."""
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return "<0.1 s" if 0 < seconds < 0.1 else f"{seconds:.1f} s" if seconds else ""


def size(bytes_: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes_ >= length:
            return f"{bytes_ / length:.1f} {unit}"
    return f"{bytes_ / 1e3:.1f} kB" if bytes_ else ""


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
