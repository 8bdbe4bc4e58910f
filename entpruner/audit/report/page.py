"""The audit's report: a page that is read in three minutes, and the chapters behind it with all tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entpruner.audit.statistics import Estimate
from entpruner.layout import DETAIL
from entpruner.reporting.tabular import markdown_table, write_csv, write_text

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """A table of the report. It is shown in the text, and written to a CSV file."""

    name: str
    """The name of the CSV file, without its suffix."""
    caption: str
    columns: Mapping[str, str]
    """Heading -> the format specification of the cells below it."""
    rows: Sequence[Sequence[Cell]]

    def markdown(self) -> str:
        """The table as Markdown. An interval is in brackets behind its number, and a missing number is a dash."""
        forms = list(self.columns.values())
        texts = [["–" if cell is None else format(cell, form) for cell, form in zip(row, forms, strict=True)]
                 for row in self.rows]  # fmt: skip
        return markdown_table(self.columns, texts)

    def write_csv(self, folder: Path) -> None:
        """Write ``<name>.csv`` in full precision. A column with intervals becomes three: value, low and high."""
        columns: dict[str, list[Any]] = {}
        for heading, *cells in zip(self.columns, *self.rows, strict=True):
            columns[heading] = [cell.value if isinstance(cell, Estimate) else cell for cell in cells]
            if any(isinstance(cell, Estimate) for cell in cells):
                columns |= {f"{heading} {end}": [getattr(cell, end, None) for cell in cells] for end in ("low", "high")}
        write_csv(folder / f"{self.name}.csv", columns, zip(*columns.values(), strict=True))


@dataclass
class Chapter:
    """A chapter of the report. Its module ``chapter_<name>`` adds findings, tables and figures to it."""

    title: str
    method: str
    """The paragraphs that say what was measured and how to read it."""
    findings: list[str] = field(default_factory=list)
    """Sentences that are made from the numbers by fixed rules."""
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, tuple[str, Callable[[Path], None]]] = field(default_factory=dict)
    """File name without suffix -> the caption, and a function that draws the figure to such a path."""
    pages: dict[str, str] = field(default_factory=dict)
    """The path of a separate page -> its Markdown."""
    short: list[str] = field(default_factory=list)
    """The sentences on the page."""

    def summary(self, number: int) -> str:
        """The section of the page: the question, its answers, and the first figure of the chapter."""
        blocks = [f"## {number}. {self.title}", "\n".join(f"- {said}" for said in self.short)]
        return "\n\n".join([*blocks, *self.pictures()[:1]])

    def pictures(self) -> list[str]:
        return [f"![{caption}]({name}.png)" for name, (caption, _) in self.figures.items()]

    def markdown(self, number: int) -> str:
        blocks = [f"## {number}. {self.title}", self.method]
        blocks += ["\n".join(f"- {finding}" for finding in self.findings)]
        blocks += self.pictures()
        for table in self.tables:
            blocks += [f"**{table.caption}** ([CSV]({table.name}.csv))", table.markdown()]
        return "\n\n".join(blocks)

    def write_files(self, folder: Path) -> None:
        for table in self.tables:
            table.write_csv(folder)
        for name, (_, draw) in self.figures.items():
            draw(folder / name)
        for name, text in self.pages.items():
            write_text(folder / name, text)


def summary(chapters: Sequence[Chapter]) -> dict[str, Any]:
    """The questions of the audit with their short answers, for the page of the study."""
    asked = [chapter for chapter in chapters if chapter.short]
    return {"chapters": [{"question": c.title, "answers": c.short, "figures": list(c.figures)} for c in asked]}


def write_report(out: Path, opening: str, closing: str, detail: Sequence[str], chapters: Sequence[Chapter]) -> None:
    """Write the page ``out`` and, beside it, the detail with its tables, figures and pages.

    ``opening`` and ``closing`` are the first and the last paragraphs of the page. ``detail`` are the sections that come
    before the chapters in the detail. The page is written last, so that its links lead to files that exist.
    """
    for chapter in chapters:
        chapter.write_files(out.parent)
    texts = [chapter.markdown(number) for number, chapter in enumerate(chapters, start=1)]
    write_text(out.with_name(DETAIL), "\n\n".join([*detail, *texts]) + "\n")
    short = [chapter.summary(number) for number, chapter in enumerate(chapters, start=1) if chapter.short]
    write_text(out, "\n\n".join([opening, *short, closing]) + "\n")
