"""The paper's tables: one row an arm, every number read from the file that a rule wrote, the paper's own beside it.

A table becomes CSV (full precision), Markdown, HTML and LaTeX (three significant digits), and a provenance file that
says for each cell from which file and key it came, and for each arm with which settings, code and commit it was made.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.params.reporting import ColumnName
from entpruner.reporting.columns import COLUMNS, Cell, measure, si_prefix, words
from entpruner.reporting.reference import PaperNumber, Reference
from entpruner.reporting.results import ArmResult
from entpruner.system.files import whole_file, write_json

NOT_PUBLIC = "not public"


@dataclass(frozen=True)
class Row:
    """All seeds of one arm on one backbone and data set."""

    seeds: tuple[ArmResult, ...]
    cells: Mapping[ColumnName, Cell]
    """The table's columns, from left to right."""
    paper: tuple[PaperNumber, ...]
    command: str

    @property
    def evidence(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tag for number in self.paper for tag in number.evidence))

    def public(self, column: str) -> str:
        """The paper's number for a column."""
        return "; ".join(str(number) for number in self.paper if number.column == column) or NOT_PUBLIC

    @property
    def identity(self) -> dict[str, str]:
        """The columns that say what the row is."""
        arm = self.seeds[0]
        return {
            "method": arm.label,
            "backbone": arm.backbone,
            "data": arm.data,
            "ratio": "–" if arm.ratio is None else f"{arm.ratio:.0%}",
            "blocks": f"{len(arm.kept_blocks)}/{arm.depth}",
            "seeds": f"n={len(self.seeds)}",
        }


@dataclass(frozen=True)
class ReportTable:
    """A table that is ready to be written."""

    name: str
    caption: str
    distance: str
    """What the distance is called: fid on InceptionV3, else fd_<extractor>."""
    columns: tuple[ColumnName, ...]
    rows: tuple[Row, ...]
    paper: Mapping[str, str]
    """The columns of which a number of the paper's is public, and their headings."""
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """``<name>.csv``, ``.md``, ``.html``, ``.tex`` and ``.provenance.json``."""
        for suffix, render in (("md", self.markdown), ("html", self.html), ("tex", self.latex)):
            with whole_file(folder / f"{self.name}.{suffix}") as file:
                file.write_text(render())
        with whole_file(folder / f"{self.name}.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.records()[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records())
        write_json(folder / f"{self.name}.provenance.json", self.provenance())

    def records(self) -> list[dict[str, Any]]:
        """The rows of the CSV: plain names, full precision, empty where nothing was measured."""
        records = []
        for row in self.rows:
            arm = row.seeds[0]
            record: dict[str, Any] = row.identity | {"ratio": arm.ratio, "blocks": len(arm.kept_blocks)}
            record |= {"seeds": len(row.seeds), "feature_distance": self.distance}
            for name, cell in row.cells.items():
                column = COLUMNS[name]
                record[name] = cell.value
                if column.per_seed:
                    record |= {f"{name}_std": cell.std, f"{name}_ci95": cell.interval}
                if column.quartiles is not None:
                    record[f"{name}_q25"], record[f"{name}_q75"] = cell.quartiles or (None, None)
            if self.paper:
                record |= {f"paper_{name}": row.public(name) for name in self.paper}
                record["evidence"] = " ".join(row.evidence)
            records.append(record | {"command": row.command})
        return records

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells as Markdown and LaTeX show them, without the commands."""
        headings = ["method", "backbone", "data", "ratio", "blocks kept", "seeds"]
        cells = [list(row.identity.values()) for row in self.rows]
        for name in self.columns:
            column, measured = COLUMNS[name], [row.cells[name] for row in self.rows]
            factor, heading = 1.0, column.heading.format(**words(self.distance))
            if column.unit is not None:
                factor, prefix = si_prefix(cell.value for cell in measured)
                heading += f" ({prefix}{column.unit})" if prefix + column.unit else ""
            headings.append(heading)
            for texts, cell in zip(cells, measured, strict=True):
                texts.append(cell.text(factor))
        if self.paper:
            headings += [*self.paper.values(), "evidence"]
            for texts, row in zip(cells, self.rows, strict=True):
                texts += [*(row.public(name) for name in self.paper), ", ".join(row.evidence) or "–"]
        return headings, cells

    def markdown(self) -> str:
        headings, cells = self.texts()
        lines = [[*headings, "command"], ["---"] * (len(headings) + 1)]
        lines += [[*texts, f"`{row.command}`"] for texts, row in zip(cells, self.rows, strict=True)]
        table = "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)
        return f"**{self.caption}**\n\n{table}\n\n" + "\n".join(f"- {note}" for note in self.notes) + "\n"

    def html(self) -> str:
        """A page of its own, for Snakemake's report."""
        headings, cells = self.texts()
        lines = [("th", [*headings, "command"])]
        lines += [("td", [*texts, row.command]) for texts, row in zip(cells, self.rows, strict=True)]
        rows = ("".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) for tag, texts in lines)
        return "\n".join(
            [
                f'<!doctype html><meta charset="utf-8"><title>{escape(self.caption)}</title>',
                "<style>body {font: 14px sans-serif; margin: 2em} table {border-collapse: collapse}",
                "th, td {padding: .3em .8em; text-align: left; white-space: nowrap; border-bottom: 1px solid}</style>",
                f"<h3>{escape(self.caption)}</h3>",
                "<table>",
                *(f"<tr>{row}</tr>" for row in rows),
                "</table>",
                "<ul>",
                *(f"<li>{escape(note)}</li>" for note in self.notes),
                "</ul>\n",
            ]
        )

    def latex(self) -> str:
        """A ``table*`` for booktabs and graphicx; commands stand numbered below, where there is room for them."""
        headings, cells = self.texts()
        lines = [["", *headings], *([str(i), *texts] for i, texts in enumerate(cells, 1))]
        head, *body = (" & ".join(latex_escape(text) for text in line) + r" \\" for line in lines)
        below = [latex_escape(note) for note in self.notes]
        below += [rf"{i}: \texttt{{{latex_escape(row.command)}}}" for i, row in enumerate(self.rows, 1)]
        left = 4  # number, method, backbone, data
        return "\n".join(
            [
                r"% \usepackage{booktabs, graphicx}",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{latex_escape(self.caption)}}}",
                rf"\label{{tab:{self.name.replace('_', '-')}}}",
                r"\resizebox{\linewidth}{!}{%",
                rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(headings) + 1 - left)}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                r"{\raggedright\scriptsize",
                *(rf"\par {text}" for text in below),
                r"\par}",
                r"\end{table*}",
                "",
            ]
        )

    def provenance(self) -> dict[str, Any]:
        """Every cell's value, files and keys; every arm's settings, code and commit."""
        kept = ("settings", "code", "commit", "kept_blocks", "seed")
        arms = {arm.artefact: {key: getattr(arm, key) for key in kept} for row in self.rows for arm in row.seeds}
        rows = [
            {**row.identity, "command": row.command, "cells": {name: asdict(cell) for name, cell in row.cells.items()}}
            for row in self.rows
        ]
        return {"table": self.name, "caption": self.caption, "arms": arms, "rows": rows}


def build(
    name: str,
    caption: str,
    columns: Sequence[ColumnName],
    arms: Sequence[str],
    results: Sequence[ArmResult],
    reference: Reference,
    *,
    distance: str,
    command: str = "snakemake --cores all",
) -> ReportTable:
    """The table ``name`` of a study: rows in the order of ``arms``, the seeds of a row brought together.

    ``distance`` is the metric that is shown: ``fid``, or ``fd_<extractor>``. ``command`` is what a row's targets are
    appended to. The paper's numbers stand beside ours in a table that has some. Raises UserError where no arm is left
    to show, and for an arm without results.
    """
    if not arms:
        raise UserError(f"table {name}: none of its arms is left; see its key `only`")
    groups: dict[tuple[Any, ...], list[ArmResult]] = {}
    for arm in arms:
        found = [result for result in results if result.name == arm]
        if not found:
            raise UserError(f"table {name}: arm {arm} has no results; run the workflow for it first")
        for result in found:
            groups.setdefault(result.row, []).append(result)
    numbers = [number for number in reference.numbers if number.table == name and number.column in columns]
    rows = []
    for seeds in groups.values():
        paper = tuple(number for number in numbers if number.is_beside(seeds[0]))
        made = [
            arm.documents[document] for arm in seeds for document in ("cut", "metrics") if document in arm.documents
        ]
        targets = " ".join(document.path for document in made)
        cells = {column: measure(COLUMNS[column], seeds, distance) for column in columns}
        rows.append(Row(tuple(seeds), cells, paper, f"{command} {targets}"))
    headings = {"distance": "paper: FID", "speedup": "paper: speed-up"}
    public = {column: heading for column, heading in headings.items() if any(n.column == column for n in numbers)}
    notes = (*notes_on_ours(columns, rows, distance), *notes_on_the_papers(name, rows, reference))
    return ReportTable(name, caption, distance, tuple(columns), tuple(rows), public, notes)


def notes_on_ours(columns: Sequence[ColumnName], rows: Sequence[Row], distance: str) -> list[str]:
    """What a reader must know to read our columns."""
    net = "InceptionV3" if distance == "fid" else f"the feature net '{distance.removeprefix('fd_')}', so not FID or IS"
    notes = [f"Distance, score, KID, precision and recall are on {net}."]
    notes += dict.fromkeys(note.format(**words(distance)) for column in columns for note in COLUMNS[column].notes)
    if any(len(row.seeds) > 1 for row in rows):
        notes.append("±: half-width of the 95 % t-interval of the mean over the n seeds.")
    if any(len(row.seeds) == 1 for row in rows):
        notes.append("n=1: a single seed, its spread unknown.")
    return notes


def notes_on_the_papers(name: str, rows: Sequence[Row], reference: Reference) -> list[str]:
    """What a reader must know of the paper's numbers, or that none of them is public; nothing if it isn't its table."""
    about = [note for note in reference.notes if name in note.tables]
    evidence = [*(row.evidence for row in rows), *(note.evidence for note in about)]
    notes = []
    if any(row.paper for row in rows):
        notes.append(f"Paper: {reference.paper}. {reference.scale}")
    notes += dict.fromkeys(f"{number}: {number.scope}." for row in rows for number in row.paper if number.scope)
    notes += [f"{note.text} [{', '.join(note.evidence)}]" for note in about]
    notes += [f"[{tag}]: {reference.evidence[tag]}." for tag in dict.fromkeys(chain.from_iterable(evidence))]
    return notes


LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "×": r"$\times$",
        "±": r"$\pm$",
        "−": r"$-$",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
    }
)


def latex_escape(text: str) -> str:
    return text.translate(LATEX)
