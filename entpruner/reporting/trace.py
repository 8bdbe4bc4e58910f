"""``entpruner trace``: where one cell of a table comes from."""

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import yaml

from entpruner.errors import UserError
from entpruner.reporting.columns import COLUMNS
from entpruner.reporting.recorded import RecordedRow, RecordedTable, located, read_tables
from entpruner.reporting.results import Document

HEADINGS: dict[str, str] = {name: column.heading for name, column in COLUMNS.items()}


def trace(study: str, table: str, number: int, column: str) -> str:
    """A cell's value and, seed by seed, its file, key, settings, code and commit; then the command that makes it.

    Rows count from 1. A column is named by its own name, its heading, or a beginning of either that fits no other.
    Raises UserError that lists what there is.
    """
    folders = [Path("results", study), Path("results/published", study)]
    folder = next((each for each in folders if read_tables(each / "tables")), None)
    if folder is None:
        raise UserError(f"{' and '.join(map(str, folders))}: no tables; run: make results STUDY={study}")
    tables = read_tables(folder / "tables")
    if table not in tables:
        raise UserError(f"{folder}/tables: no {table}; there are {', '.join(tables)}")
    rows = tables[table].rows
    if not 1 <= number <= len(rows):
        listed = "; ".join(f"{i} {' '.join(row.key)}" for i, row in enumerate(rows, 1))
        raise UserError(f"{table} has no row {number}; there are {listed}")
    row = rows[number - 1]
    return "\n".join(lines(tables[table], row, number, column_of(row, column, table), folder))


def column_of(row: RecordedRow, given: str, table: str) -> str:
    """The column that is meant."""
    names = {column: names_of(row, column) for column in row.cells}
    wanted = plain(given)
    exact = [column for column, known in names.items() if wanted in known]
    begun = [column for column, known in names.items() if any(name.startswith(wanted) for name in known)]
    for found in (exact, begun):
        if len(found) == 1:
            return found[0]
    said = f"could be {', '.join(begun)}" if begun else f"is none; there are {', '.join(names)}"
    raise UserError(f"{table}: column {given} {said}")


def names_of(row: RecordedRow, column: str) -> set[str]:
    """A column's own name and its heading: with ``fd`` for the distance, and with what it is called in this table."""
    heading = HEADINGS.get(column, column)
    distance = row.cells["distance"].sources if "distance" in row.cells else ()
    called = {"fd", *(source["key"] for source in distance)}
    return {plain(column), *(plain(heading.format(fd=fd, on=fd.removeprefix("fd"))) for fd in called)}


def plain(heading: str) -> str:
    """A heading without its arrow, unit and brackets."""
    return re.split(r" [↓↑(\[]", heading.strip())[0].casefold()


def lines(table: RecordedTable, row: RecordedRow, number: int, column: str, study: Path) -> list[str]:
    cell = row.cells[column]
    said = [f"{table.name}, row {number}, {column}: {' · '.join(row.key)}"]
    if cell.value is None:
        said.append("no number: a file of its arms does not hold it")
    else:
        spread = "" if cell.std is None else f" ± {cell.std!r} (mean and sample standard deviation)"
        quartiles = "" if cell.quartiles is None else f" [{', '.join(map(repr, cell.quartiles))}] (quartiles)"
        said.append(f"{cell.value!r}{spread}{quartiles}")
    for folder, sources in groupby(cell.sources, key=lambda source: source["arm"]):
        arm = table.arms[folder]
        said.append(f"seed {arm['seed']}")
        for source in sources:
            said += [
                f"    value     {value_at(source, study)}",
                f"    file      {source['file']}",
                f"    key       {source['key']}",
            ]
        settings = yaml.safe_dump(arm["settings"], default_flow_style=None, width=100, allow_unicode=True)
        said += [
            f"    blocks    {' '.join(map(str, arm['kept_blocks']))}",
            f"    code      {arm['code']}",
            f"    commit    {arm['commit']}",
            "    settings",
            *(f"        {line}" for line in settings.splitlines()),
        ]
    return [*said, "made by", f"    {row.command}"]


def value_at(source: Mapping[str, str], study: Path) -> str:
    """What stands at the source's dotted key, now."""
    file = located(source["file"], study)
    if not file.exists():
        return f"not here: {file} is missing"
    value = Document.read(file).value(source["key"])
    return f"not here: {file} has no such key any more" if value is None else repr(value)
