"""Verdicts on the cells of a study's tables, by comparison with ``params/expected/<study>.yaml``."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from entpruner.reporting.columns import RULES
from entpruner.reporting.expected import Expected, ExpectedCell, ExpectedRow
from entpruner.reporting.recorded import RecordedRow, RecordedTable

Word = Literal["reproduced", "rebuilt from shipped records", "not reproduced", "not run", "undecided", "not judged"]
EXIT: dict[Word, int] = {
    "reproduced": 0, "rebuilt from shipped records": 0, "not reproduced": 1, "not run": 2, "undecided": 2,
    "not judged": 0,
}  # fmt: skip
"""A verdict -> the exit code that it leads to.

A number or file is ``rebuilt from shipped records`` if a table was built from records that are shipped, and shows the
very same number: nothing was trained or measured again. A time is ``not judged``, because it depends on the machine. A
number is ``undecided`` if it differs from the expected one and its tolerance is not known, or if nothing is expected of
it.
"""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a cell or a file, with its reason."""

    table: str
    row: str
    column: str
    word: Word
    reason: str


def verdicts(expected: Expected, tables: Mapping[str, RecordedTable], shipped: bool = False) -> Iterator[Verdict]:
    """One verdict for each cell that is expected, and for each cell that is there without being expected.

    ``shipped`` says that the tables were built from shipped records, so that nothing may differ.
    """
    for name in dict.fromkeys([*expected.tables, *tables]):
        wanted = {row.key: row for row in expected.tables.get(name, ())}
        found = {row.key: row for row in tables[name].rows} if name in tables else {}
        absent = "the table has no such row" if name in tables else "there is no such table"
        for key in dict.fromkeys([*wanted, *found]):
            for column, (word, reason) in of_row(wanted.get(key), found.get(key), absent, shipped):
                yield Verdict(name, " · ".join(key), column, word, reason)


def of_row(
    wanted: ExpectedRow | None, row: RecordedRow | None, absent: str, shipped: bool
) -> Iterator[tuple[str, tuple[Word, str]]]:
    """Column, verdict and reason for each cell of a row. ``absent`` is the reason if the row does not exist."""
    expected = wanted.cells if wanted else {}
    cells = row.cells if row else {}
    measured = {column: cell.value for column, cell in cells.items() if cell.value is not None}
    for column in dict.fromkeys([*expected, *measured]):
        if wanted is None or column not in expected:
            reason = f"{shown(measured[column])}, but nothing is expected of it; generate the expectations again"
            yield column, ("undecided", reason)
        elif row is None:
            yield column, ("not run", absent)
        elif row.seeds != wanted.seeds:
            yield column, ("not run", f"{seeds(row.seeds)} here, expected of {seeds(wanted.seeds)}; run the same")
        elif column not in measured:
            yield column, ("not run", f"no number, expected {shown(expected[column].value)}")
        else:
            cell, value, of = expected[column], measured[column], seeds(wanted.seeds)
            yield column, rebuilt(cell, value, of) if shipped else judge(column, cell, value, of)


def judge(column: str, wanted: ExpectedCell, value: float, seeds: str) -> tuple[Word, str]:
    """The verdict on a number and its reason. ``seeds`` names the seeds of the expected number."""
    off = abs(value - wanted.value)
    if off == 0:
        return "reproduced", f"{shown(value)}, the very same number"
    if RULES.get(column) == "time":
        return "not judged", f"{shown(value)}, was {shown(wanted.value)}: the machine's own time"
    if wanted.tolerance is None:
        reason = f"{shown(value)}, expected {shown(wanted.value)} of {seeds}"
        return "undecided", f"{reason}: how far another processor moves it is unknown"
    if wanted.tolerance == 0:
        return "not reproduced", f"{shown(value)}, expected exactly {shown(wanted.value)}"
    reason = f"{shown(value)}, expected {shown(wanted.value)} ± {wanted.tolerance:.3g} of {seeds}: off by {off:.2g}"
    if off <= wanted.tolerance:
        return "reproduced", reason
    return "not reproduced", f"{reason}, {off / wanted.tolerance:.3g} times the tolerance"


def rebuilt(wanted: ExpectedCell, value: float, seeds: str) -> tuple[Word, str]:
    """The verdict on a number that was built from shipped records. It must be the expected one."""
    if value == wanted.value:
        return "rebuilt from shipped records", f"{shown(value)}, the very same number"
    return "not reproduced", f"{shown(value)} by the shipped records, expected exactly {shown(wanted.value)} of {seeds}"


def same_files(shipped: Path, built: Path) -> Iterator[Verdict]:
    """One verdict for each file of the shipped tables: whether the file in ``built`` has the same bytes."""
    for file in sorted(path for path in shipped.iterdir() if path.is_file()):
        word: Word = "not reproduced"
        other = built / file.name
        if not other.exists():
            word, reason = "not run", "not built, although it is shipped"
        elif other.read_bytes() == file.read_bytes():
            word, reason = "rebuilt from shipped records", "the same bytes as shipped"
        else:
            lines = zip(file.read_text().splitlines(), other.read_text().splitlines(), strict=False)
            line = next((i for i, (one, two) in enumerate(lines, 1) if one != two), "last")
            reason = f"not the bytes that are shipped: see line {line} of {file}"
        yield Verdict(file.name.partition(".")[0], "files", file.name, word, reason)


def seeds(numbers: Sequence[int]) -> str:
    return f"seed{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers)) or 'none'}"


def shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


# ------------------------------------------------------------------------------------------------------------ report


def report(study: str, found: Sequence[Verdict]) -> str:
    """The report: the verdict and reason of every cell, by table and row, and a last line with the counts."""
    lines, width = [], max((len(verdict.word) for verdict in found), default=0)
    for (table, row), cells in groupby(found, key=lambda verdict: (verdict.table, verdict.row)):
        lines += [f"{table} · {row}", *(f"    {cell.column:<22} {cell.word:<{width}} {cell.reason}" for cell in cells)]
    counts = Counter(verdict.word for verdict in found)
    words = ", ".join(f"{counts[word]} {word}" for word in EXIT if counts[word])
    return "\n".join([*lines, f"{study}: {len(found)} cells and files: {words}"])


def exit_code(found: Sequence[Verdict]) -> int:
    """1 if something is not reproduced; else 2 if something is not run or undecided, or without a verdict; else 0."""
    codes = {EXIT[verdict.word] for verdict in found}
    return 1 if 1 in codes else max(codes, default=2)
