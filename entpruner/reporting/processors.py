"""The difference between two processors that ran the same study with the same seeds.

python -m entpruner.reporting.processors results/published/digits results/digits params/expected/digits.processors.json

writes both values of every number of the kinds that the published tables show, wherever the run in results/digits has
it as well. That run may be unfinished. Tolerances of ``entpruner verify`` come from this file.

Where two blocks score nearly alike, the other processor may remove the other one. Then it measures another network, so
such arms are named, and their numbers are not compared.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import Field, ValidationError

from entpruner.errors import UserError
from entpruner.layout import WITHIN, Layout
from entpruner.params.base import Frozen
from entpruner.reporting.columns import RULES
from entpruner.reporting.recorded import read_tables, within
from entpruner.reporting.records import Records
from entpruner.reporting.results import Document
from entpruner.system.files import read_json, write_json

SAFETY = 2
"""How far beyond the largest measured difference a tolerance reaches. Of a third processor's differences the largest is
as likely as not to be larger than that of the second. This number was chosen, not measured."""


class Machine(Frozen):
    """On what, and with what, a run was made."""

    device: tuple[str, ...]
    torch: tuple[str, ...]
    commit: tuple[str, ...]

    @staticmethod
    def of(records: Records) -> "Machine":
        """The machine of a run, from the records of its commands without those of the audit, which no table needs."""
        timings = [timing for path, timing in records.timings().items() if not path.startswith("audit/")]
        said = {key: tuple(sorted({str(timing[key]) for timing in timings})) for key in Machine.model_fields}
        return Machine(**said)


@dataclass(frozen=True)
class Difference:
    """The differences of a column's numbers."""

    sizes: tuple[float, ...]
    """The absolute differences, relative to the published values where ``relative``, ascending."""
    relative: bool

    @property
    def largest(self) -> float:
        return self.sizes[-1]

    def allowed(self, count: int) -> float | None:
        """The difference that another processor is allowed in ``count`` numbers of the column.

        It is twice the largest difference that was measured. If fewer than ``count`` numbers were compared, it is
        larger by as much, because large differences are rare. None if those few do not differ, which says nothing.
        """
        missing = max(1.0, count / len(self.sizes))
        return None if missing > 1 and not self.largest else SAFETY * missing * self.largest

    @property
    def words(self) -> str:
        half, largest = (
            f"{size:.2%}" if self.relative else f"{size:.2g}" for size in (median(self.sizes), self.largest)
        )
        return f"{len(self.sizes)} numbers, of which the median differs by {half} and the largest by {largest}"


class Processors(Frozen):
    """What two processors gave: the content of ``params/expected/<study>.processors.json``."""

    published: Machine
    again: Machine
    values: dict[str, dict[str, tuple[float, float]]]
    """Column -> file and key of a number -> the number on either machine."""
    other_blocks: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = Field(default_factory=dict)
    """Arm -> the blocks that its network keeps on either machine, where these differ."""

    @property
    def words(self) -> str:
        names = (" and ".join(machine.device) for machine in (self.published, self.again))
        return "the differences between two processors ({} and {}) at the same seeds:".format(*names)

    def differences(self) -> dict[str, Difference]:
        """The differences of every column that was compared."""
        found = {}
        for column, values in self.values.items():
            relative = RULES[column] == "relative"
            pairs = [(first, again) for first, again in values.values() if first or not relative]
            sizes = sorted(abs(again - first) / (abs(first) if relative else 1) for first, again in pairs)
            found[column] = Difference(tuple(sizes), relative)
        return found

    @staticmethod
    def read(path: Path) -> "Processors | None":
        """Read the file. None if nothing was measured, so that it does not exist. Raises UserError if it is damaged."""
        if not path.exists():
            return None
        try:
            return Processors.model_validate(read_json(path))
        except (ValueError, ValidationError):
            raise UserError(f"{path}: not what entpruner.reporting.processors writes; write it again") from None


def compared(published: Path, again: Path) -> Processors:
    """Compare what two runs of a study measured, in arms whose networks keep the same blocks in both.

    ``again`` may have only some of the arms.

    Raises UserError if the runs have no number in common, or if both were made on the same processor.
    """
    first, second = Records(published), Records(again)
    other = other_blocks(first, second)
    values: dict[str, dict[str, tuple[float, float]]] = {}
    for column, pattern, key in sorted(judged(published)):
        for file, document in second.matching(pattern).items():
            if file not in first or Path(file).parts[1] in other:
                continue
            pair = number(first[file], key), number(document, key)
            if pair[0] is not None and pair[1] is not None:
                values.setdefault(column, {})[f"{file} {key}"] = pair[0], pair[1]
    if not values:
        raise UserError(f"{again}: has no number that {published} has in a table; run some of its arms first")
    found = Processors(published=Machine.of(first), again=Machine.of(second), values=values, other_blocks=other)
    if set(found.published.device) & set(found.again.device):
        name = " and ".join(found.again.device)
        raise UserError(f"{again}: was made on {name}, as {published} was; another processor is needed to compare")
    return found


def other_blocks(first: Records, second: Records) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Arm -> the blocks that its network keeps in either run, where these differ."""
    found = {}
    cards = WITHIN.cut("*").files["card"], WITHIN.final("*").files["card"]
    for file, card in second.matching(*cards).items():
        if file in first and first[file]["kept_blocks"] != card["kept_blocks"]:
            found[Path(file).parts[1]] = tuple(first[file]["kept_blocks"]), tuple(card["kept_blocks"])
    return found


def judged(published: Path) -> set[tuple[str, str, str]]:
    """Column, files and key of all numbers that tables show and that another processor may change.

    The files are a pattern with a star for the arm or network, because other arms have the same numbers as those that a
    table shows.
    """
    found = set()
    for table in read_tables(Layout.at(published).tables).values():
        for row in table.rows:
            for column, cell in row.cells.items():
                if RULES.get(column) in ("relative", "absolute"):
                    sources = ((Path(within(source["file"])).parts, source["key"]) for source in cell.sources)
                    found |= {(column, Path(room, "*", *rest).as_posix(), key) for (room, _, *rest), key in sources}
    return found


def number(document: Mapping[str, Any], key: str) -> float | None:
    value = Document("", document).value(key)
    return None if value is None else float(value)


if __name__ == "__main__":
    try:
        write_json(Path(sys.argv[3]), compared(Path(sys.argv[1]), Path(sys.argv[2])).model_dump(mode="json"))
    except UserError as error:
        sys.exit(f"error: {error}")
