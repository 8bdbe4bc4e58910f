"""The expected value and tolerance of every cell of a study's tables: ``params/expected/<study>.yaml``.

The file is generated from published tables. The same commands give the same bits on the same machine. On another
machine training rounds differently, so in the worst case a network and its samples differ as much as those of another
seed. A tolerance therefore comes from the spread between seeds, if the study measured it. results/README.md has the
details.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from entpruner.errors import UserError
from entpruner.evaluation.intervals import t_quantile
from entpruner.layout import PUBLISHED, Layout
from entpruner.params.base import Frozen
from entpruner.params.documents import read_yaml
from entpruner.reporting.columns import COLUMNS, Cell, Rule
from entpruner.reporting.recorded import RecordedRow, RecordedTable, Row, read_tables, within
from entpruner.reporting.records import Records

RULES: dict[str, Rule] = {"blocks": "exact", **{name: column.rule for name, column in COLUMNS.items()}}
"""The name of a column -> how its numbers are judged."""
FLOORED = ("distance_before", "distance", "over_floor")
"""The columns of Fréchet distances. Their floor is known: the distance between two halves of the real data."""
CONFIDENCE = 0.95
"""The probability that all cells of a correct repetition with other seeds are reproduced, jointly."""
MARGIN = 0.15
"""How far beyond its quartiles a speed-up may lie, relative to its value. It was chosen and not measured."""

HEADER = """\
What `make verify` compares the tables of {study} with. Generated, never typed:
- entpruner expect {folder} --out params/expected/{study}.yaml
A cell is reproduced if it is within `tolerance` of `value`: 0 means the very same number, null that its size is not \
judged. results/README.md says where tolerances come from. Those that come from a spread are such that all {cells} \
cells with one are within theirs with {confidence:.0%} probability. The spreads are:
"""


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


# ------------------------------------------------------------------------------------------------------------ spread


@dataclass(frozen=True)
class Spread:
    """The spread of a column between seeds."""

    size: float
    """The standard deviation of one seed."""
    freedom: float
    """The degrees of freedom of this estimate."""
    source: str
    """Where the spread comes from, in words."""
    relative: bool
    """Whether the standard deviation is relative to the value."""

    def tolerance(self, value: float, seeds: int, cells: int) -> float:
        """The largest accepted difference of two means over ``seeds`` seeds.

        It is a quantile of Student's distribution with a Bonferroni correction for the ``cells`` cells that are judged.
        """
        quantile = t_quantile(1 - (1 - CONFIDENCE) / (2 * cells), self.freedom)
        scale = abs(value) if self.relative else 1.0
        return quantile * self.size * scale * math.sqrt(2 / seeds)


def pooled(column: str, rows: Iterable[RecordedRow]) -> Spread | None:
    """The standard deviation of a column between seeds, pooled over rows. None if no row has several seeds."""
    relative = RULES[column] == "relative"
    squares, freedom, used = 0.0, 0, 0
    for row in rows:
        cell = row.cells.get(column)
        if cell is not None and cell.value is not None and cell.std is not None and (cell.value or not relative):
            degrees = len(row.seeds) - 1
            squares += degrees * (cell.std / (abs(cell.value) if relative else 1)) ** 2
            freedom, used = freedom + degrees, used + 1
    if not freedom:
        return None
    size = math.sqrt(squares / freedom)
    shown = f"{size:.2%} of the value" if relative else f"{size:.3g}"
    source = f"spread between seeds, pooled over {used} rows: {shown} a seed, {freedom} degrees of freedom"
    return Spread(size, freedom, source, relative)


def floor_spread(rows: Iterable[RecordedRow], records: Records) -> Spread | None:
    """The relative standard deviation of a distance's floor, the largest of all data sets. None if none is known."""
    found = []
    for distance in (source for row in rows if "distance" in row.cells for source in row.cells["distance"].sources):
        metrics = records[within(distance["file"])]
        floor, std = (metrics.get(f"{distance['key']}_{name}") for name in ("floor", "floor_std"))
        if floor and std is not None:
            found.append(std / floor)
    if not found:
        return None
    source = f"one seed a row: spread of the real data's own floor, {max(found):.2%} of the value"
    return Spread(max(found), math.inf, source, relative=True)


def spreads_of(rows: Sequence[RecordedRow], records: Records) -> dict[str, Spread]:
    """The spread of each column. Columns without a known spread are left out."""
    judged = [column for column, rule in RULES.items() if rule in ("relative", "absolute")]
    pools = {column: pooled(column, rows) for column in judged}
    floored = {column: floor_spread(rows, records) for column in FLOORED if pools[column] is None}
    return {column: spread for column, spread in (pools | floored).items() if spread is not None}


# -------------------------------------------------------------------------------------------------------- generation


def expect(study: Path) -> str:
    """The text of the file for a study, which lies in results/published/<study> or results/<study>.

    Raises UserError if there are no tables, if two rows cannot be told apart, and if a column has no rule.
    """
    folder = Layout.at(study).tables
    tables = read_tables(folder)
    if not tables:
        raise UserError(f"{folder}: no table's provenance; run: make publish STUDY={study.name}")
    for table in tables.values():
        check(table, study)
    rows = distinct_rows(tables)
    spreads = spreads_of(rows, Records(study))
    cells = sum(row.cells[column].value is not None for row in rows for column in spreads if column in row.cells)
    expected = Expected(
        study=study.name,
        tables={name: tuple(expected_row(row, spreads, cells) for row in table.rows) for name, table in tables.items()},
    )
    said = HEADER.format(study=study.name, folder=study, cells=cells, confidence=CONFIDENCE)
    said += "".join(f"- Here {column}: {spread.source}.\n" for column, spread in spreads.items())
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


def expected_row(row: RecordedRow, spreads: Mapping[str, Spread], cells: int) -> ExpectedRow:
    """The row with a tolerance for each number. ``cells`` is the number of cells in all tables with a known spread."""
    found = {}
    for column in RULES:
        cell = row.cells.get(column)
        if cell is not None and cell.value is not None:
            allowed = tolerance(column, cell, spreads.get(column), len(row.seeds), cells)
            found[column] = ExpectedCell(value=cell.value, tolerance=None if allowed is None else rounded_up(allowed))
    return ExpectedRow(**row.model_dump(include=set(Row.model_fields)), cells=found)


def tolerance(column: str, cell: Cell, spread: Spread | None, seeds: int, cells: int) -> float | None:
    """The tolerance of a cell. None if nothing is known about its spread."""
    value = cell.value or 0
    if RULES[column] == "exact":
        return 0.0
    if RULES[column] == "ratio of times":
        return max((abs(quartile - value) for quartile in cell.quartiles or ()), default=0) + MARGIN * abs(value)
    return None if spread is None else spread.tolerance(value, seeds, cells)


def rounded_up(value: float) -> float:
    """A value that is 0 or more, rounded up to three significant digits."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / step) * step:.3g}")
