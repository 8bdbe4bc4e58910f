"""The tables of the paper, with a row for each arm. The paper's public numbers are shown beside ours.

Every number is read from a file that a rule wrote. A table is written as CSV, with all columns in full precision; as
Markdown, HTML and LaTeX, with three significant digits and as many columns as fit on a page; and as a provenance file,
with the file and key of each cell, the command of each row, and the settings, code and commit of each arm.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import WITHIN
from entpruner.params.reporting import ColumnName
from entpruner.reporting.columns import COLUMNS, Cell, measure, si_prefix, words
from entpruner.reporting.printed import MOST_COLUMNS, Group, Line, Printed
from entpruner.reporting.records import Records
from entpruner.reporting.reference import PaperNumber, Reference
from entpruner.reporting.results import ArmResult, result_of
from entpruner.reporting.tabular import write_csv, write_text
from entpruner.reporting.words import sentence, spoken
from entpruner.rules.report import TableSettings
from entpruner.system.files import write_json

PAPER_HEADINGS = {"distance": "paper: FID", "speedup": "paper: speed-up"}
NOT_PUBLIC = "not public"
BOLD = "Bold: better than every other row of its group with as many blocks, by intervals that do not overlap."


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
    def label(self) -> str:
        return self.seeds[0].label

    @property
    def where(self) -> str:
        """The backbone and the data, in words. Rows that share them are a group."""
        return f"{spoken(self.seeds[0].backbone)}, {spoken(self.seeds[0].data)}"

    @property
    def rank(self) -> tuple[Any, ...]:
        """What rows that can be compared with each other share."""
        return self.where, len(self.seeds[0].kept_blocks)

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
        printed = self.printed()
        for kind, text in (
            ("md", printed.markdown()),
            ("html", printed.html()),
            ("tex", printed.latex(self.settings.name)),
        ):
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
                    record[f"{name}_std"] = cell.std
                    record[f"{name}_low"], record[f"{name}_high"] = cell.interval or (None, None)
                if COLUMNS[name].quartiles is not None:
                    record[f"{name}_q25"], record[f"{name}_q75"] = cell.quartiles or (None, None)
            if self.paper:
                record |= {f"paper_{name}": row.public(name) for name in self.paper}
                record["evidence"] = " ".join(row.evidence)
            records.append(record)
        return records

    # ------------------------------------------------------------------------------------------- what people read

    def printed(self) -> Printed:
        """The table as people read it. It has the first columns that fit; notes name the others.

        A column that is the same in every row becomes a note as well.
        """
        identity, papers = self.identity(), {self.paper[name]: self.publics(name) for name in self.paper}
        alike = [name for name in self.settings.columns if len(self.rows) > 1 and len(set(self.column(name)[1])) == 1]
        differing = [name for name in self.settings.columns if name not in alike]
        places = MOST_COLUMNS - len(identity) - len(papers)
        measured = dict(enumerate(differing[:places], start=len(identity)))
        shown = identity | dict(map(self.column, measured.values())) | papers
        groups: dict[str, list[Line]] = {}
        for row, cells in zip(self.rows, zip(*shown.values(), strict=True), strict=True):
            best = frozenset(place for place, name in measured.items() if self.is_best(row, name))
            groups.setdefault(row.where, []).append(Line(cells, best))
        marks = [BOLD] if any(line.best for lines in groups.values() for line in lines) else []
        return Printed(
            self.settings.caption,
            tuple(shown),
            tuple(Group(title, tuple(lines)) for title, lines in groups.items()),
            (*self.notes_on_columns(alike, differing[places:]), *marks, *self.notes),
        )

    def identity(self) -> dict[str, list[str]]:
        """The columns that say what each row is. That of the seeds is left out if all rows have as many."""
        shown = {
            "method": [row.label for row in self.rows],
            "removed": [row.identity["ratio"].replace("%", " %") for row in self.rows],
            "blocks": [row.identity["blocks"] for row in self.rows],
            "seeds": [str(len(row.seeds)) for row in self.rows],
        }
        if len(set(shown["seeds"])) == 1:
            del shown["seeds"]
        return shown

    def column(self, name: ColumnName) -> tuple[str, list[str]]:
        """The heading of a measured column, with its unit, and the cells below it as text."""
        column, cells = COLUMNS[name], [row.cells[name] for row in self.rows]
        factor, heading = 1.0, column.heading.format(**words(self.settings.distance))
        if column.unit is not None:
            factor, prefix = si_prefix(cell.value for cell in cells)
            heading += f" ({prefix}{column.unit})" if prefix + column.unit else ""
        return heading, [cell.text(factor) for cell in cells]

    def publics(self, name: str) -> list[str]:
        """The cells with the paper's numbers for a column."""
        return [row.public(name) for row in self.rows]

    def is_best(self, row: Row, name: ColumnName) -> bool:
        """Whether a cell is better than that of every other row with as many blocks, beyond the intervals of both."""
        sign = {"↑": 1, "↓": -1}.get(COLUMNS[name].heading[-1], 0)
        others = [other for other in self.rows if other is not row and other.rank == row.rank]
        return bool(sign and others) and all(row.cells[name].is_better(o.cells[name], sign) for o in others)

    def notes_on_columns(self, alike: Sequence[ColumnName], left_out: Sequence[ColumnName]) -> Iterator[str]:
        """The notes on what has no column: the seeds, and what is ``alike`` in every row or ``left_out``."""
        counts = {len(row.seeds) for row in self.rows}
        if len(counts) == 1:
            count = counts.pop()
            yield f"Every row: {count} seed{'s' if count > 1 else ''}."
        for name in alike:
            heading, (text, *_) = self.column(name)
            yield f"{sentence(heading)}: {text} in every row."
        if left_out:
            headings = [COLUMNS[name].heading.format(**words(self.settings.distance)) for name in left_out]
            yield f"Also in {self.settings.name}.csv: {', '.join(heading.rstrip(' ↓↑') for heading in headings)}."

    def provenance(self) -> dict[str, Any]:
        """The content of the provenance file: where each cell comes from, and how each arm was made."""
        kept = ("settings", "code", "commit", "kept_blocks", "seed")
        arms = {arm.artefact: {key: getattr(arm, key) for key in kept} for row in self.rows for arm in row.seeds}
        rows = [
            {**row.identity, "command": row.command, "cells": {name: asdict(cell) for name, cell in row.cells.items()}}
            for row in self.rows
        ]
        return {"table": self.settings.name, "caption": self.settings.caption, "arms": arms, "rows": rows}


def table_from(records: Records, settings: TableSettings, cited: Path, reference: Path) -> ReportTable:
    """The table of a study with the documents ``records``, which it cites as files of the folder ``cited``.

    ``reference`` is the file with the paper's numbers.
    """
    results = [result_of(records, cited, arm, settings.columns) for arm in settings.arms]
    return build(settings, results, Reference.read(reference))


def build(settings: TableSettings, results: Sequence[ArmResult], reference: Reference) -> ReportTable:
    """The table of these arms, with the seeds of an arm in one row.

    It has columns for the paper's numbers if its rows are of the paper's kind, and if some of these numbers are public.
    Raises UserError if there is no arm to show.
    """
    name, columns = settings.name, settings.columns
    if not results:
        raise UserError(f"table {name}: none of its arms is left; see its key `only`")
    is_papers = reference.rows.hold(settings.distance, results)
    numbers = [n for n in reference.numbers if is_papers and n.table == name and n.column in columns]
    groups: dict[tuple[Any, ...], list[ArmResult]] = {}
    for result in results:
        groups.setdefault(result.row, []).append(result)
    rows = []
    for seeds in by_group(groups.values()):
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
    notes = [*notes_on_ours(columns, rows, settings.distance)]
    notes += notes_on_the_papers(name, rows, reference) if is_papers else ()
    return ReportTable(settings, tuple(rows), public, tuple(notes))


def by_group(rows: Iterable[Sequence[ArmResult]]) -> list[Sequence[ArmResult]]:
    """The rows in groups of a backbone and its data, and within these by the ratio. Otherwise their order stays."""
    rows = list(rows)
    groups = list(dict.fromkeys((seeds[0].backbone, seeds[0].data) for seeds in rows))
    return sorted(rows, key=lambda seeds: (groups.index((seeds[0].backbone, seeds[0].data)), seeds[0].ratio or 0))


def notes_on_ours(columns: Sequence[ColumnName], rows: Sequence[Row], distance: str) -> Iterator[str]:
    """The notes on our columns."""
    net = "InceptionV3" if distance == "fid" else f"the feature net '{distance.removeprefix('fd_')}', so not FID or IS"
    yield f"Distance, score, KID, precision and recall are on {net}."
    texts = (note.format(**words(distance)) for column in columns for note in COLUMNS[column].notes)
    yield from dict.fromkeys(map(sentence, texts))
    if any(len(row.seeds) > 1 for row in rows):
        yield "[ ]: the 95 % t-interval of the mean over seeds, on a scale that keeps it within what is possible."
    if any(len(row.seeds) == 1 for row in rows):
        yield "A row of a single seed has no interval."


def notes_on_the_papers(name: str, rows: Sequence[Row], reference: Reference) -> Iterator[str]:
    """The notes on the paper's numbers, or that none of them is public. There are none for a table of our own."""
    about = [note for note in reference.notes if name in note.tables]
    evidence = [*(row.evidence for row in rows), *(note.evidence for note in about)]
    if any(row.paper for row in rows):
        yield f"Paper: {reference.paper}. {reference.scale}"
    scoped = [number for row in rows for number in row.paper if number.scope]
    yield from dict.fromkeys(f"{number}: {number.scope} [{', '.join(number.evidence)}]." for number in scoped)
    yield from (f"{note.text} [{', '.join(note.evidence)}]" for note in about)
    yield from (f"[{tag}]: {reference.evidence[tag]}." for tag in dict.fromkeys(chain.from_iterable(evidence)))
