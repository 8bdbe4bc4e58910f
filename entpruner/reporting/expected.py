"""The expected value and tolerance of every cell of a study's tables: ``params/expected/<study>.yaml``.

The file is generated from published tables. The same commands give the same bits on the same machine. Another processor
rounds differently, which training makes larger. How much larger is measured (``processors``), and tolerances come from
this measurement. results/README.md has the details.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from entpruner.errors import UserError
from entpruner.layout import PUBLISHED, Layout
from entpruner.params.base import Frozen
from entpruner.params.documents import read_yaml
from entpruner.reporting.columns import RULES, Cell
from entpruner.reporting.processors import Processors
from entpruner.reporting.recorded import RecordedRow, RecordedTable, Row, read_tables

MARGIN = 0.15
"""How far beyond its quartiles a speed-up may lie, relative to its value. It was chosen and not measured."""

HEADER = """\
What `make verify` compares the tables of {study} with. Generated, never typed:
- entpruner expect {folder} --out params/expected/{study}.yaml
A cell is reproduced if it is within `tolerance` of `value`: 0 means the very same number, null that its size is not \
judged. results/README.md says where tolerances come from. {measured}
"""
UNMEASURED = "Nobody has measured how far another processor moves these numbers."


class ExpectedCell(Frozen):
    value: int | float
    tolerance: float | None
    """The largest difference that counts as reproduced. None if the size of the number is not judged."""


class ExpectedRow(Row):
    cells: dict[str, ExpectedCell]


class Expected(Frozen):
    """The content of ``params/expected/<study>.yaml``."""

    study: str
    tables: dict[str, tuple[ExpectedRow, ...]]

    @staticmethod
    def read(path: Path, study: str) -> "Expected":
        """Read the file. Raises UserError if it is missing, damaged, or of another study."""
        if not path.exists():
            raise UserError(
                f"{path}: not there, so nothing says what is expected; publish the study (make publish STUDY={study}), "
                f"or: entpruner expect {PUBLISHED / study} --out {path}"
            )
        try:
            expected = Expected.model_validate(read_yaml(path))
        except yaml.YAMLError as error:
            raise UserError(f"{path}: {' '.join(str(error).split())}; generate it again") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; generate it again") from None
        if expected.study != study:
            raise UserError(f"{path}: expectations of study {expected.study}, not of {study}; name the other file")
        return expected


# -------------------------------------------------------------------------------------------------------- generation


def expect(study: Path, processors: Processors | None) -> str:
    """The text of the file for a study, which lies in results/published/<study> or results/<study>.

    ``processors`` is the measured difference between two processors. Raises UserError if there are no tables, if two
    rows cannot be told apart, and if a column has no rule.
    """
    folder = Layout.at(study).tables
    tables = read_tables(folder)
    if not tables:
        raise UserError(f"{folder}: no table's provenance; run: make publish STUDY={study.name}")
    for table in tables.values():
        check(table, study)
    differences = processors.differences() if processors else {}
    cells = [item for row in distinct_rows(tables) for item in row.cells.items()]
    # A row's mean over n seeds has n chances of a large difference, which moves it by an n-th: it counts as one number.
    counts = Counter(column for column, cell in cells if cell.sources)
    allowed = {name: each.allowed(counts[name]) for name, each in differences.items()}
    expected = Expected(
        study=study.name,
        tables={name: tuple(expected_row(row, allowed) for row in table.rows) for name, table in tables.items()},
    )
    measured = f"They come from {processors.words}" if processors else UNMEASURED
    said = HEADER.format(study=study.name, folder=study, measured=measured)
    said += "".join(
        f"- Here {column}: {each.words}; the tables show {counts[column]}.\n" for column, each in differences.items()
    )
    wrapped = (textwrap.wrap(line, 118, subsequent_indent="  ", break_long_words=False) for line in said.splitlines())
    body = yaml.safe_dump(
        expected.model_dump(mode="json"), sort_keys=False, default_flow_style=None, allow_unicode=True, width=10_000
    )
    return "".join(f"# {line}\n" for lines in wrapped for line in lines) + body


def distinct_rows(tables: Mapping[str, RecordedTable]) -> list[RecordedRow]:
    """The rows of all tables. If two tables show the same arms, there is one row with the columns of both."""
    rows: dict[tuple[str, ...], RecordedRow] = {}
    for row in (row for table in tables.values() for row in table.rows):
        earlier = rows[row.arms].cells if row.arms in rows else {}
        rows[row.arms] = row.model_copy(update={"cells": earlier | row.cells})
    return list(rows.values())


def check(table: RecordedTable, study: Path) -> None:
    """Raises UserError if two rows have the same key, or if it is not known how to judge a column."""
    keys = [row.key for row in table.rows]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"{study}: {table.name} has two rows {', '.join(twice[0])}; give their arms other labels")
    if unknown := {column for row in table.rows for column in row.cells} - RULES.keys():
        names = ", ".join(sorted(unknown))
        raise UserError(
            f"{study}: {table.name}: how to judge {names} is not known; say so in entpruner.reporting.columns.COLUMNS"
        )


def expected_row(row: RecordedRow, allowed: Mapping[str, float | None]) -> ExpectedRow:
    """The row with a tolerance for each number. ``allowed`` are the accepted differences of processors, by column."""
    found = {}
    for column in RULES:
        cell = row.cells.get(column)
        if cell is not None and cell.value is not None:
            size = tolerance(column, cell, allowed.get(column))
            found[column] = ExpectedCell(value=cell.value, tolerance=None if size is None else rounded_up(size))
    return ExpectedRow(**row.model_dump(include=set(Row.model_fields)), cells=found)


def tolerance(column: str, cell: Cell, allowed: float | None) -> float | None:
    """The tolerance of a cell. None if nothing is known about what another processor gives.

    ``allowed`` is the accepted difference of processors in the column, relative where the column is judged so.
    """
    value = abs(cell.value or 0)
    match RULES[column]:
        case "exact":
            return 0.0
        case "ratio of times":
            return max((abs(quartile - value) for quartile in cell.quartiles or ()), default=0) + MARGIN * value
        case "relative":
            return None if allowed is None else allowed * value
        case "absolute":
            return allowed
        case "time":
            return None


def rounded_up(value: float) -> float:
    """A value that is 0 or more, rounded up to three significant digits."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / step) * step:.3g}")
