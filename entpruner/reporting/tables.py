"""The paper's tables: one row an arm, every number read from the file that a rule wrote, the paper's own beside it.

A table becomes CSV (full precision), Markdown, HTML and LaTeX (three significant digits), and a provenance file that
says for each cell from which file and key it came, and for each arm with which settings, code and commit it was made.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from entpruner.artefacts import read_json, whole_file, write_json
from entpruner.errors import UserError
from entpruner.params import Frozen

NOT_PUBLIC = "not public"

# ----------------------------------------------------------------------------------------------- the paper's numbers


class PaperNumber(Frozen):
    """One public number of the paper, and the rows and column that it belongs beside."""

    table: str
    match: dict[str, str | float | int | None] = Field(min_length=1)
    """Fields of ``ArmResult`` and the values that they must have."""
    column: Literal["distance", "speedup"]
    value: float
    form: str = "{}"
    """How the value is written: ``{}×``, or ``+{}`` for a difference."""
    scope: str | None = None
    """What the number is of, where it isn't of this very row; stands below the table."""
    evidence: tuple[str, ...] = Field(min_length=1)

    def __str__(self) -> str:
        return self.form.format(f"{self.value:g}") + ("*" if self.scope else "")


class PaperNote(Frozen):
    tables: tuple[str, ...]
    text: str
    evidence: tuple[str, ...] = Field(min_length=1)


class Reference(Frozen):
    """``params/reference.yaml``."""

    paper: str
    scale: str
    """Why the paper's numbers must not be compared with ours by size."""
    evidence: dict[str, str]
    """Tag: what it stands for."""
    numbers: tuple[PaperNumber, ...]
    notes: tuple[PaperNote, ...] = ()

    @model_validator(mode="after")
    def _known_names(self) -> "Reference":
        rows = {field.name for field in fields(ArmResult)}
        tags = chain(*(number.evidence for number in self.numbers), *(note.evidence for note in self.notes))
        if unknown := set(tags) - set(self.evidence):
            raise ValueError(f"evidence {', '.join(sorted(unknown))} is not explained under 'evidence'")
        for number in self.numbers:
            if unknown := set(number.match) - rows:
                raise ValueError(f"an arm has no field {', '.join(sorted(unknown))} to match")
        return self

    @staticmethod
    def read(path: Path) -> "Reference":
        """Raises UserError where the file doesn't hold together."""
        try:
            return Reference.model_validate(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "numbers and notes"
            raise UserError(f"{path}: {where}: {first['msg']}; correct it there") from None


# ------------------------------------------------------------------------------------------------------------- arms


@dataclass(frozen=True)
class Document:
    """A JSON file that cells are read from."""

    path: str
    content: Mapping[str, Any]

    @staticmethod
    def read(path: Path) -> "Document":
        return Document(path.as_posix(), read_json(path))

    def value(self, key: str) -> Any:
        """What stands at a dotted key; None where nothing does."""
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class ArmResult:
    """One arm and seed: what it was, and the files that say what came of it."""

    arm: str
    """Its name in the study; with the backbone, the data and the ratio it names a row."""
    artefact: str
    """Its folder: results/<study>/arms/<arm>-..."""
    label: str
    backbone: str
    process: str
    data: str
    criterion: str | None
    schedule: str
    ratio: float | None
    seed: int
    depth: int
    """Blocks of the unpruned network."""
    kept_blocks: tuple[int, ...]
    network: str
    """Its network's key in the cost document."""
    documents: Mapping[str, Document]
    """metrics, cost and training: metrics.json, the backbone's cost.json, and a file with its steps and FLOPs."""
    settings: Mapping[str, Any]
    """The resolved settings that its rules were given."""
    code: str
    """Digest of the package files that made it."""
    commit: str
    """Git commit that it was made at."""

    @property
    def row(self) -> tuple[Any, ...]:
        return self.arm, self.backbone, self.data, self.ratio


# ---------------------------------------------------------------------------------------------------- rows and cells


@dataclass(frozen=True)
class Column:
    """A measured column. In a key ``{fd}`` is the distance, ``{on}`` its feature net, ``{network}`` the network."""

    name: str
    heading: str
    document: str
    key: str
    quartiles: str | None = None
    """Key of the lower and upper quartile."""
    unit: str | None = None
    """Unit to scale with an SI prefix."""
    per_seed: bool = True
    """False where a number belongs to the backbone, not to a seed: it has no spread over seeds."""


COLUMNS = (
    Column("distance", "{fd} ↓", "metrics", "{fd}"),
    Column("over_floor", "× floor ↓", "metrics", "{fd}_ratio"),
    Column("kid", "KID ↓", "metrics", "kid{on}"),
    Column("precision", "precision ↑", "metrics", "precision{on}"),
    Column("recall", "recall ↑", "metrics", "recall{on}"),
    Column("agreement", "class agreement ↑", "metrics", "agreement"),
    Column("parameters", "parameters", "cost", "blocks.{network}.parameters", unit="", per_seed=False),
    Column("macs", "MACs", "cost", "blocks.{network}.macs", unit="", per_seed=False),
    Column(
        "speedup",
        "speed-up ↑ [quartiles]",
        "cost",
        "blocks.{network}.speedup",
        quartiles="blocks.{network}.speedup_quartiles",
        per_seed=False,
    ),
    Column("steps", "steps", "training", "total_steps", per_seed=False),
    Column("training_flops", "training", "training", "total_flops", unit="FLOP"),
)


@dataclass(frozen=True)
class Cell:
    """Mean over seeds. ``std`` is the sample standard deviation, None for one seed; ``value`` None: not measured."""

    value: float | None
    std: float | None = None
    quartiles: tuple[float, ...] | None = None
    sources: tuple[dict[str, str], ...] = ()

    def text(self, factor: float = 1) -> str:
        """Three significant digits of the mean, counts in full; spread and quartiles to the same decimal."""
        if self.value is None:
            return "–"
        if isinstance(self.value, int) and factor == 1:
            return str(self.value)
        value = self.value / factor
        decimals = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        if self.quartiles is not None:
            low, high = (quartile / factor for quartile in self.quartiles)
            return f"{value:.2f} [{low:.2f}, {high:.2f}]"
        spread = "" if self.std is None else f" ± {self.std / factor:.{decimals}f}"
        return f"{value:.{decimals}f}{spread}"


@dataclass(frozen=True)
class Row:
    """All seeds of one arm on one backbone and data set."""

    seeds: tuple[ArmResult, ...]
    cells: Mapping[str, Cell]
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


def measure(column: Column, seeds: Sequence[ArmResult], distance: str) -> Cell:
    """One cell: the column's key in each seed's file, and their mean. Nothing where a seed lacks the number."""
    values, sources, quartiles = [], [], None
    for arm in seeds:
        document = arm.documents[column.document]
        names = {
            "fd": distance,
            "on": "" if distance == "fid" else distance.removeprefix("fd"),
            "network": arm.network,
        }
        key = column.key.format(**names)
        value = document.value(key)
        if value is None:
            return Cell(None)
        if column.quartiles is not None:
            quartiles = tuple(document.value(column.quartiles.format(**names)))
        values.append(value)
        sources.append({"arm": arm.artefact, "file": document.path, "key": key})
    std = statistics.stdev(values) if column.per_seed and len(values) > 1 else None
    return Cell(statistics.mean(values), std, quartiles, tuple(sources))


# ------------------------------------------------------------------------------------------------------------ tables


@dataclass(frozen=True)
class ReportTable:
    """A table that is ready to be written."""

    name: str
    caption: str
    distance: str
    """What the distance is called: fid on InceptionV3, else fd_<extractor>."""
    rows: tuple[Row, ...]
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
            for column in COLUMNS:
                cell = row.cells[column.name]
                record[column.name] = cell.value
                if column.per_seed:
                    record[f"{column.name}_std"] = cell.std
                if column.quartiles is not None:
                    record[f"{column.name}_q25"], record[f"{column.name}_q75"] = cell.quartiles or (None, None)
            record |= {f"paper_{column}": row.public(column) for column in ("distance", "speedup")}
            records.append(record | {"evidence": " ".join(row.evidence), "command": row.command})
        return records

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells as Markdown and LaTeX show them, without the commands."""
        headings = ["method", "backbone", "data", "ratio", "blocks kept", "seeds"]
        cells = [list(row.identity.values()) for row in self.rows]
        for column in COLUMNS:
            measured = [row.cells[column.name] for row in self.rows]
            factor, heading = 1.0, column.heading.format(fd=self.distance)
            if column.unit is not None:
                factor, prefix = si_prefix(cell.value for cell in measured)
                heading += f" ({prefix}{column.unit})" if prefix + column.unit else ""
            headings.append(heading)
            for texts, cell in zip(cells, measured, strict=True):
                texts.append(cell.text(factor))
        headings += ["paper: FID", "paper: speed-up", "evidence"]
        for texts, row in zip(cells, self.rows, strict=True):
            texts += [row.public("distance"), row.public("speedup"), ", ".join(row.evidence) or "–"]
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
    arms: Sequence[str],
    results: Sequence[ArmResult],
    reference: Reference,
    *,
    distance: str,
    command: str = "snakemake --cores all",
) -> ReportTable:
    """The table ``name`` of a study: rows in the order of ``arms``, the seeds of a row brought together.

    ``distance`` is the metric that is shown: ``fid``, or ``fd_<extractor>``. ``command`` is what a row's targets are
    appended to. Raises UserError for an arm without results.
    """
    groups: dict[tuple[Any, ...], list[ArmResult]] = {}
    for arm in arms:
        found = [result for result in results if result.arm == arm]
        if not found:
            raise UserError(f"table {name}: arm {arm} has no results; run the workflow for it first")
        for result in found:
            groups.setdefault(result.row, []).append(result)
    rows = []
    for seeds in groups.values():
        paper = tuple(number for number in reference.numbers if number.table == name and matches(number, seeds[0]))
        targets = " ".join(arm.documents["metrics"].path for arm in seeds)
        cells = {column.name: measure(column, seeds, distance) for column in COLUMNS}
        rows.append(Row(tuple(seeds), cells, paper, f"{command} {targets}"))
    return ReportTable(name, caption, distance, tuple(rows), notes_below(name, rows, reference, distance))


def matches(number: PaperNumber, arm: ArmResult) -> bool:
    return all(getattr(arm, field) == value for field, value in number.match.items())


def notes_below(name: str, rows: Sequence[Row], reference: Reference, distance: str) -> tuple[str, ...]:
    """What a reader must know to read the table: our columns first, then the paper's."""
    net = "InceptionV3" if distance == "fid" else f"the feature net '{distance.removeprefix('fd_')}', so not FID"
    notes = [
        f"{distance}: Fréchet distance on {net}; KID, precision and recall are on the same features.",
        "× floor: the distance to one half of the real data, over the distance of its other half to that half.",
        "Speed-up: measured latency of the unpruned network over the row's, median and quartiles of paired repeats.",
        "Training: operations of the row's own steps; a multiply-accumulate counts as two.",
    ]
    if any(len(row.seeds) > 1 for row in rows):
        notes.append("±: sample standard deviation over the n seeds.")
    if any(len(row.seeds) == 1 for row in rows):
        notes.append("n=1: a single seed, its spread unknown.")
    about = [note for note in reference.notes if name in note.tables]
    evidence = [*(row.evidence for row in rows), *(note.evidence for note in about)]
    notes.append(f"Paper: {reference.paper}. {reference.scale}")
    numbers = dict.fromkeys(f"{number}: {number.scope}." for row in rows for number in row.paper if number.scope)
    notes += numbers
    notes += [f"{note.text} [{', '.join(note.evidence)}]" for note in about]
    notes += [f"[{tag}]: {reference.evidence[tag]}." for tag in dict.fromkeys(chain.from_iterable(evidence))]
    return tuple(notes)


def si_prefix(values: Iterable[float | None]) -> tuple[float, str]:
    """Factor and SI prefix that show the largest of ``values`` with one to three digits before the point."""
    largest = max((abs(value) for value in values if value is not None), default=0)
    power = min(max(int(math.log10(largest)) // 3, 0), 6) if largest > 0 else 0
    return 1000.0**power, ("", "k", "M", "G", "T", "P", "E")[power]


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
