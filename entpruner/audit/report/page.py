"""What a part of the audit's report is made of, and how it is written: Markdown, a CSV a table, figures."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from entpruner.audit.statistics import Estimate
from entpruner.system.files import whole_file

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    name: str
    """Of its CSV file."""
    caption: str
    columns: Mapping[str, str]
    """Heading -> how its numbers are written: a format specification."""
    rows: Sequence[Sequence[Cell]]

    def markdown(self) -> str:
        lines = [list(self.columns), ["---"] * len(self.columns)]
        lines += [
            [shown(cell, form) for cell, form in zip(row, self.columns.values(), strict=True)] for row in self.rows
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def write_csv(self, folder: Path) -> None:
        """In full precision; an interval takes two columns more."""
        estimated = [any(isinstance(row[i], Estimate) for row in self.rows) for i in range(len(self.columns))]
        heads = [
            [name, f"{name} low", f"{name} high"] if wide else [name]
            for name, wide in zip(self.columns, estimated, strict=True)
        ]
        with whole_file(folder / f"{self.name}.csv") as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([name for head in heads for name in head])
            for row in self.rows:
                writer.writerow([part for cell, wide in zip(row, estimated, strict=True) for part in plain(cell, wide)])


def shown(cell: Cell, form: str) -> str:
    """A number with its interval in brackets; – where there is none."""
    match cell:
        case None:
            return "–"
        case str():
            return cell
        case Estimate():
            return f"{cell.value:{form}} [{cell.low:{form}}, {cell.high:{form}}]"
        case _:
            return f"{cell:{form}}"


def plain(cell: Cell, wide: bool) -> list[str | int | float | None]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    return [cell, None, None] if wide else [cell]


@dataclass(frozen=True)
class Part:
    """One chapter of the report."""

    title: str
    method: str
    """What was measured and how to read it."""
    findings: Sequence[str]
    """Plain sentences, made from the numbers by fixed rules."""
    tables: Sequence[Table] = ()
    figures: Mapping[str, tuple[str, Callable[[Path], None]]] = field(default_factory=dict)
    """File name -> (caption, what draws it to a path without suffix)."""
    pages: Mapping[str, str] = field(default_factory=dict)
    """Path of a page of its own -> its Markdown."""
    short: Sequence[str] = ()
    """What stands of it at the top of the report."""

    def markdown(self, number: int) -> str:
        blocks = [f"## {number}. {self.title}", self.method]
        blocks += ["\n".join(f"- {finding}" for finding in self.findings)]
        blocks += [f"![{caption}]({name}.png)" for name, (caption, _) in self.figures.items()]
        for table in self.tables:
            blocks += [f"**{table.caption}** ([CSV]({table.name}.csv))", table.markdown()]
        return "\n\n".join(blocks)

    def write_files(self, folder: Path) -> None:
        for table in self.tables:
            table.write_csv(folder)
        for name, (_, draw) in self.figures.items():
            draw(folder / name)
        for name, text in self.pages.items():
            with whole_file(folder / name) as partial:
                partial.write_text(text)


def write_report(out: Path, head: str, regime: str, parts: Sequence[Part]) -> None:
    """Head, every part in short, the regime, the parts; ``out`` last, once all that it shows lies beside it."""
    for part in parts:
        part.write_files(out.parent)
    chapters = [part.markdown(number) for number, part in enumerate(parts, start=1)]
    short = [f"- {said} ({number})" for number, part in enumerate(parts, start=1) for said in part.short]
    with whole_file(out) as partial:
        partial.write_text("\n\n".join([head, "## In short", "\n".join(short), regime, *chapters]) + "\n")
