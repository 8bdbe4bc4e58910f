"""``entpruner trace``: where one cell of a table comes from."""

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import yaml

from entpruner.errors import UserError
from entpruner.layout import PUBLISHED, Layout
from entpruner.reporting.columns import COLUMNS, Cell, words
from entpruner.reporting.recorded import RecordedRow, RecordedTable, read_tables, within
from entpruner.reporting.records import Records
from entpruner.reporting.results import Document

HEADINGS: dict[str, str] = {name: column.heading for name, column in COLUMNS.items()}


def trace(study: str, table: str, number: int, column: str) -> str:
    """Say where a cell comes from: its value, the file, key, settings, code and commit of each seed, and the command.

    Rows count from 1. ``column`` is the name or the heading of a column, or an unambiguous beginning of one. Raises
    UserError that lists what there is, if there is no such table, row or column.
    """
    places = [Layout(study), Layout(study, PUBLISHED)]
    paths = next((place for place in places if read_tables(place.tables)), None)
    if paths is None:
        looked = " and ".join(str(place.root) for place in places)
        raise UserError(f"{looked}: no tables; run: make results STUDY={study}")
    tables = read_tables(paths.tables)
    if table not in tables:
        raise UserError(f"{paths.tables}: no {table}; there are {', '.join(tables)}")
    rows = tables[table].rows
    if not 1 <= number <= len(rows):
        listed = "; ".join(f"{i} {' '.join(row.key)}" for i, row in enumerate(rows, 1))
        raise UserError(f"{table} has no row {number}; there are {listed}")
    row = rows[number - 1]
    found = column_of(row, column, table)
    cell = row.cells[found]
    seeds = yaml.safe_dump(
        seeds_of(tables[table], cell, Records(paths.root)),
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )
    title = f"{table}, row {number}, {found}: {' · '.join(row.key)}"
    return f"{title}\n{value_of(cell)}\n{seeds if cell.sources else ''}made by: {row.command}"


def column_of(row: RecordedRow, given: str, table: str) -> str:
    """The column with this name or heading. Raises UserError if there is none, or more than one."""
    names = {name: column for column in row.cells for name in names_of(row, column)}
    wanted = plain(given)
    begun = list(dict.fromkeys(column for name, column in names.items() if name.startswith(wanted)))
    if wanted in names or len(begun) == 1:
        return names.get(wanted, begun[0])
    said = f"could be {', '.join(begun)}" if begun else f"is none; there are {', '.join(row.cells)}"
    raise UserError(f"{table}: column {given} {said}")


def names_of(row: RecordedRow, column: str) -> set[str]:
    """The names of a column: its own, its heading, and of the distance also ``fd`` and what this table measures."""
    heading = HEADINGS.get(column, column)
    called = {"fd", *(source["key"] for source in row.cells[column].sources)} if column == "distance" else set()
    return {plain(column), *called, *(plain(heading.format(**words(distance))) for distance in ("fid", "fd"))}


def plain(heading: str) -> str:
    """A heading in lower case, without its arrow, unit and brackets."""
    return re.split(r" [↓↑(\[]", heading.strip())[0].casefold()


def value_of(cell: Cell) -> str:
    """The value of a cell as text, with its spread and its quartiles."""
    if cell.value is None:
        return "no number: a file of its arms does not hold it"
    spread = "" if cell.std is None else f" ± {cell.std!r} (mean and sample standard deviation)"
    quartiles = "" if cell.quartiles is None else f" [{', '.join(map(repr, cell.quartiles))}] (quartiles)"
    return f"{cell.value!r}{spread}{quartiles}"


def seeds_of(table: RecordedTable, cell: Cell, records: Records) -> list[dict[str, Any]]:
    """The values that each seed contributed to a cell, and the settings, code and commit that made them."""
    seeds = []
    for folder, sources in groupby(cell.sources, key=lambda source: source["arm"]):
        arm = table.arms[folder]
        values = {source["file"]: {source["key"]: value_at(source, records)} for source in sources}
        made = {key: arm[key] for key in ("code", "commit", "settings")}
        seeds.append({"seed": arm["seed"], "values": values, "blocks": arm["kept_blocks"], **made})
    return seeds


def value_at(source: Mapping[str, str], records: Records) -> Any:
    """The present value at the dotted key of a source, or a text that says that it is missing."""
    path = within(source["file"])
    if path not in records:
        return f"not here: {records.folder}/{path} is missing"
    value = Document(path, records[path]).value(source["key"])
    return f"not here: {records.folder}/{path} has no such key any more" if value is None else value
