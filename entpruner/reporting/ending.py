"""The last lines of a run: what was found, where to look, and what to do next."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from entpruner.params.files import DEFAULT_STUDY, PARAMS
from entpruner.study.resolved import ResolvedStudy


def ending(study: ResolvedStudy, targets: Collection[str]) -> str:
    """What a run that was asked for ``targets`` says at its end. No targets stand for the whole study."""
    page, audited = study.paths.story().files, study.paths.audit_report().path
    whole = not targets or not {"all", "audit", str(page["page"])}.isdisjoint(targets)
    lines = [""]
    if whole and page["headline"].exists():
        lines += [page["headline"].read_text().strip(), f"The whole story: {page['page']}"]
    tables = {str(study.paths.table(name).files["md"]) for name in study.params.tables}
    for target in sorted(targets):
        if target in tables:
            lines += [*aligned(Path(target).read_text()), target]
        elif Path(target).exists() and target != str(page["page"]):
            lines.append(target)
    if "audit" in targets:
        lines.append(f"What score, proxies and schedule are worth: {audited}")
    if not whole:
        lines.append(f"Next, for the whole study, which goes on from here: {command(study, 'results')}")
    elif study.params.audit is not None and not audited.exists():
        lines.append(f"Next, for what score, proxies and schedule are worth: {command(study, 'audit')}")
    elif study.params.tables:
        table = next(iter(study.params.tables))
        lines.append(f"Where a number comes from: entpruner trace --study {study.params.study} {table} 1 distance")
    return "\n".join(lines)


def command(study: ResolvedStudy, target: Literal["results", "audit"]) -> str:
    """What a reader types to make a target: make, for a study that is a params file of its own in params/."""
    name = study.params.study
    if list(study.files) == [PARAMS / f"{name}.yaml"]:
        return f"make {target}" + ("" if study.files[0] == DEFAULT_STUDY else f" STUDY={name}")
    return study.command + (" audit" if target == "audit" else "")


def stopped(study: ResolvedStudy) -> str:
    """What a run says that did not reach its end."""
    logs = study.paths.root / "logs"
    return f"\nNot finished. Logs: {logs}. The same command goes on from here: what is done stays done."


def aligned(markdown: str) -> Iterator[str]:
    """A Markdown table as lines for a terminal, under its caption."""
    caption, *lines = (line for line in markdown.splitlines() if line)
    rows = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    yield caption.strip("*")
    yield from columns([rows[0], *rows[2:]])


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines: the first column to the left, the others to the right. A row of one cell is a heading."""
    widths = [max(len(row[i]) for row in rows if any(row[1:])) for i in range(len(rows[0]))]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
