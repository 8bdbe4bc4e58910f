"""The tables of the paper, with a row for each arm. The paper's public numbers are shown beside ours.

Every number is read from a file that a rule wrote. A table is written as CSV in full precision, as Markdown, HTML and
LaTeX with three significant digits, and as a provenance file. The provenance has the file and key of each cell, and the
settings, code and commit of each arm.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import WITHIN
from entpruner.params.reporting import ColumnName
from entpruner.reporting.columns import COLUMNS, Cell, measure, si_prefix, words
from entpruner.reporting.records import Records
from entpruner.reporting.reference import PaperNumber, Reference
from entpruner.reporting.results import ArmResult, result_of
from entpruner.reporting.tabular import markdown_table, write_csv, write_text
from entpruner.rules.report import TableSettings
from entpruner.system.files import write_json

PAPER_HEADINGS = {"distance": "paper: FID", "speedup": "paper: speed-up"}
IDENTITY_HEADINGS = ("method", "backbone", "data", "ratio", "blocks kept", "seeds")
NOT_PUBLIC = "not public"
HTML = Template("""\
<!doctype html><meta charset="utf-8"><title>$caption</title>
<style>body {font: 14px sans-serif; margin: 2em} table {border-collapse: collapse}
th, td {padding: .3em .8em; text-align: left; white-space: nowrap; border-bottom: 1px solid}</style>
<h3>$caption</h3>
<table>
$rows
</table>
<ul>
$notes
</ul>
""")
LATEX = Template(r"""% \usepackage{booktabs, graphicx}
\begin{table*}
\centering
\caption{$caption}
\label{tab:$label}
\resizebox{\linewidth}{!}{%
\begin{tabular}{$alignment}
\toprule
$head
\midrule
$body
\bottomrule
\end{tabular}}
{\raggedright\scriptsize
$below
\par}
\end{table*}
""")
LATEX_ESCAPES = str.maketrans(
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


@dataclass(frozen=True)
class Row:
    """A row of a table: an arm on one backbone and data set, with all of its seeds."""

    seeds: tuple[ArmResult, ...]
    cells: Mapping[ColumnName, Cell]
    """The cell of each column, from left to right."""
    paper: tuple[PaperNumber, ...]
    """The paper's public numbers for this row."""
    command: str
    """The command that makes the row."""

    @property
    def evidence(self) -> tuple[str, ...]:
        """The tags of the sources that the paper's numbers are known from."""
        return tuple(dict.fromkeys(tag for number in self.paper for tag in number.evidence))

    def public(self, column: str) -> str:
        """The paper's number for a column, as text."""
        return "; ".join(str(number) for number in self.paper if number.column == column) or NOT_PUBLIC

    @property
    def identity(self) -> dict[str, str]:
        """The cells of the columns that say what the row is, by name."""
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

    settings: TableSettings
    rows: tuple[Row, ...]
    paper: Mapping[str, str]
    """The columns for which the paper has a public number -> the headings of these numbers."""
    notes: tuple[str, ...]
    """The texts below the table."""

    def write(self, folder: Path) -> None:
        """Write the table's CSV, Markdown, HTML, LaTeX and provenance into ``folder``."""
        files = {kind: folder / path.name for kind, path in WITHIN.table(self.settings.name).files.items()}
        for kind, text in (("md", self.markdown()), ("html", self.html()), ("tex", self.latex())):
            write_text(files[kind], text)
        records = self.records()
        write_csv(files["csv"], records[0], (record.values() for record in records))
        write_json(files["provenance"], self.provenance())

    def records(self) -> list[dict[str, Any]]:
        """The rows of the CSV by the names of its columns, in full precision. None if nothing was measured."""
        records = []
        for row in self.rows:
            arm = row.seeds[0]
            record: dict[str, Any] = row.identity | {"ratio": arm.ratio, "blocks": len(arm.kept_blocks)}
            record |= {"seeds": len(row.seeds), "feature_distance": self.settings.distance}
            for name, cell in row.cells.items():
                record[name] = cell.value
                if COLUMNS[name].per_seed:
                    record |= {f"{name}_std": cell.std, f"{name}_ci95": cell.interval}
                if COLUMNS[name].quartiles is not None:
                    record[f"{name}_q25"], record[f"{name}_q75"] = cell.quartiles or (None, None)
            if self.paper:
                record |= {f"paper_{name}": row.public(name) for name in self.paper}
                record["evidence"] = " ".join(row.evidence)
            records.append(record | {"command": row.command})
        return records

    def texts(self) -> dict[str, list[str]]:
        """Heading -> the cells below it as text. The column of the commands is left out."""
        identity = [row.identity.values() for row in self.rows]
        shown = {heading: list(cells) for heading, *cells in zip(IDENTITY_HEADINGS, *identity, strict=True)}
        for name in self.settings.columns:
            column, cells = COLUMNS[name], [row.cells[name] for row in self.rows]
            factor, heading = 1.0, column.heading.format(**words(self.settings.distance))
            if column.unit is not None:
                factor, prefix = si_prefix(cell.value for cell in cells)
                heading += f" ({prefix}{column.unit})" if prefix + column.unit else ""
            shown[heading] = [cell.text(factor) for cell in cells]
        if self.paper:
            shown |= {heading: [row.public(name) for row in self.rows] for name, heading in self.paper.items()}
            shown["evidence"] = [", ".join(row.evidence) or "–" for row in self.rows]
        return shown

    def markdown(self) -> str:
        shown = self.texts() | {"command": [f"`{row.command}`" for row in self.rows]}
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"**{self.settings.caption}**\n\n{markdown_table(shown, zip(*shown.values(), strict=True))}\n\n{notes}\n"

    def html(self) -> str:
        """The table as a complete HTML page, for Snakemake's report."""
        shown = self.texts() | {"command": [row.command for row in self.rows]}
        lines = [("th", tuple(shown)), *(("td", cells) for cells in zip(*shown.values(), strict=True))]
        rows = ("".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) for tag, texts in lines)
        return HTML.substitute(
            caption=escape(self.settings.caption),
            rows="\n".join(f"<tr>{row}</tr>" for row in rows),
            notes="\n".join(f"<li>{escape(note)}</li>" for note in self.notes),
        )

    def latex(self) -> str:
        """The table as a ``table*`` for the packages booktabs and graphicx, with the commands as a list below it."""
        shown = {"": [str(i) for i, _ in enumerate(self.rows, 1)]} | self.texts()
        head, *body = (
            " & ".join(map(latex_escape, line)) + r" \\" for line in (shown, *zip(*shown.values(), strict=True))
        )
        below = [latex_escape(note) for note in self.notes]
        below += [rf"{i}: \texttt{{{latex_escape(row.command)}}}" for i, row in enumerate(self.rows, 1)]
        return LATEX.substitute(
            caption=latex_escape(self.settings.caption),
            label=self.settings.name.replace("_", "-"),
            alignment="llll" + "r" * (len(shown) - 4),  # number, method, backbone and data are aligned left
            head=head,
            body="\n".join(body),
            below="\n".join(rf"\par {text}" for text in below),
        )

    def provenance(self) -> dict[str, Any]:
        """The content of the provenance file: where each cell comes from, and how each arm was made."""
        kept = ("settings", "code", "commit", "kept_blocks", "seed")
        arms = {arm.artefact: {key: getattr(arm, key) for key in kept} for row in self.rows for arm in row.seeds}
        rows = [
            {**row.identity, "command": row.command, "cells": {name: asdict(cell) for name, cell in row.cells.items()}}
            for row in self.rows
        ]
        return {"table": self.settings.name, "caption": self.settings.caption, "arms": arms, "rows": rows}


def latex_escape(text: str) -> str:
    return text.translate(LATEX_ESCAPES)


def table_from(records: Records, settings: TableSettings, cited: Path, reference: Path) -> ReportTable:
    """The table of a study with the documents ``records``, which it cites as files of the folder ``cited``.

    ``reference`` is the file with the paper's numbers.
    """
    results = [result_of(records, cited, arm, settings.columns) for arm in settings.arms]
    return build(settings, results, Reference.read(reference))


def build(settings: TableSettings, results: Sequence[ArmResult], reference: Reference) -> ReportTable:
    """The table of these arms in their order, with the seeds of an arm in one row.

    It has columns for the paper's numbers if some of these are public. Raises UserError if there is no arm to show.
    """
    name, columns = settings.name, settings.columns
    if not results:
        raise UserError(f"table {name}: none of its arms is left; see its key `only`")
    numbers = [number for number in reference.numbers if number.table == name and number.column in columns]
    groups: dict[tuple[Any, ...], list[ArmResult]] = {}
    for result in results:
        groups.setdefault(result.row, []).append(result)
    rows = []
    for seeds in groups.values():
        documents = [arm.documents.get(document) for arm in seeds for document in ("cut", "metrics")]
        rows.append(
            Row(
                seeds=tuple(seeds),
                cells={column: measure(COLUMNS[column], seeds, settings.distance) for column in columns},
                paper=tuple(number for number in numbers if number.is_beside(seeds[0])),
                command=" ".join([settings.command, *(document.path for document in documents if document)]),
            )
        )
    public = {column: heading for column, heading in PAPER_HEADINGS.items() if any(n.column == column for n in numbers)}
    notes = (*notes_on_ours(columns, rows, settings.distance), *notes_on_the_papers(name, rows, reference))
    return ReportTable(settings, tuple(rows), public, notes)


def notes_on_ours(columns: Sequence[ColumnName], rows: Sequence[Row], distance: str) -> Iterator[str]:
    """The notes on our columns."""
    net = "InceptionV3" if distance == "fid" else f"the feature net '{distance.removeprefix('fd_')}', so not FID or IS"
    yield f"Distance, score, KID, precision and recall are on {net}."
    yield from dict.fromkeys(note.format(**words(distance)) for column in columns for note in COLUMNS[column].notes)
    if any(len(row.seeds) > 1 for row in rows):
        yield "±: half-width of the 95 % t-interval of the mean over the n seeds."
    if any(len(row.seeds) == 1 for row in rows):
        yield "n=1: a single seed, its spread unknown."


def notes_on_the_papers(name: str, rows: Sequence[Row], reference: Reference) -> Iterator[str]:
    """The notes on the paper's numbers, or that none of them is public. There are none for a table of our own."""
    about = [note for note in reference.notes if name in note.tables]
    evidence = [*(row.evidence for row in rows), *(note.evidence for note in about)]
    if any(row.paper for row in rows):
        yield f"Paper: {reference.paper}. {reference.scale}"
    yield from dict.fromkeys(f"{number}: {number.scope}." for row in rows for number in row.paper if number.scope)
    yield from (f"{note.text} [{', '.join(note.evidence)}]" for note in about)
    yield from (f"[{tag}]: {reference.evidence[tag]}." for tag in dict.fromkeys(chain.from_iterable(evidence)))
