"""The plan of a study: a row a rule, as a table to read or as JSON."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from entpruner.arms import expand
from entpruner.params.study import Study
from entpruner.planning.audit import audited
from entpruner.planning.images import images_of
from entpruner.planning.jobs import Job, audit_jobs, jobs_of
from entpruner.planning.networks import Work
from entpruner.planning.resources import memory
from entpruner.planning.speed import Speed
from entpruner.planning.work import Planned

ORDER = (  # what others need comes first
    "download", "data", "autoencoder", "latents_shard", "latents",
    "classifier", "pretrain", "import_checkpoint", "adapt",
    "score", "prune", "recover", "cut", "sample", "evaluate", "cost", "table", "figure", "track",
    "audit_regime", "audit_masks", "audit_scores", "audit_choices", "audit_proxies", "audit_schedules",
    "audit_stability", "audit_report",
)  # fmt: skip
HEADINGS = ("rule", "jobs", "steps", "PFLOPs", "hours", "longest job", "GPU memory", "disk")
NOT_COUNTED = (
    "Hours are of one device; GPU memory is the hungriest job's, estimated. Not counted: downloads, reading images,\n"
    "fits, distances, tables, starts of processes. Assumed: votes go one step on at every stage; the audit takes its\n"
    "dearest regime."
)


class Row(NamedTuple):
    """All jobs of one rule."""

    rule: str
    jobs: int
    work: Work
    seconds: float
    longest: float
    """Seconds of the longest job."""
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
    )


def rows(planned: Planned, jobs: Iterable[Job], speed: Speed) -> tuple[Row, ...]:
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    return tuple(row(planned, rule, by_rule[rule], speed) for rule in sorted(by_rule, key=ORDER.index))


def row(planned: Planned, rule: str, jobs: Sequence[Job], speed: Speed) -> Row:
    works = [audited(planned, job) for job in jobs]
    seconds = [speed.seconds(work) for work in works]
    needed = [needed.total for job in jobs if (needed := memory(planned, job))]
    return Row(rule, len(jobs), sum(works, Work()), sum(seconds), max(seconds), max(needed, default=0.0))


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
    notes = [f"{source} is not here: its images are not counted." for source in found.missing]
    return "\n".join(
        [f"Study {found.study} on {found.speed.machine}", "", *map(str.rstrip, table), "", *notes, NOT_COUNTED]
    )


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.rule,
        f"{row.jobs:,}",
        f"{row.work.steps:,}" if row.work.steps else "",
        short(row.work.flops / 1e15),
        short(row.seconds / 3600),
        duration(row.longest),
        size(row.memory),
        size(row.work.disk),
    )


def short(value: float) -> str:
    """Three digits, or all that stand before the point; nothing for nothing."""
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.0e}"


def duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds else ""


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
    }
