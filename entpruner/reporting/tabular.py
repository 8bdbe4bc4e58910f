"""Tables as Markdown and as CSV files."""

import csv
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from entpruner.system.files import whole_file


def markdown_table(headings: Collection[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in GitHub's Markdown. Bars within cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)


def write_csv(target: Path, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file. Numbers have full precision, and None is an empty cell."""
    with whole_file(target) as path, path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([headings, *rows])


def write_text(target: Path, text: str) -> None:
    with whole_file(target) as path:
        path.write_text(text)
