"""Tables read back from their provenance files: what ``verify`` compares and ``trace`` follows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.system.files import read_json

SUFFIX = ".provenance.json"


@dataclass(frozen=True)
class RecordedCell:
    value: float | None
    std: float | None = None
    """Sample standard deviation over seeds; None for one seed."""
    quartiles: tuple[float, ...] | None = None
    sources: tuple[Mapping[str, str], ...] = ()
    """Arm, file and key of every number in it."""


@dataclass(frozen=True)
class RecordedRow:
    method: str
    backbone: str
    data: str
    ratio: str
    """As the table shows it: 50%, or a dash."""
    cells: Mapping[str, RecordedCell]
    """By column, in the table's own names; ``blocks``, the number of blocks kept, is one of them."""
    arms: tuple[str, ...]
    """Folders of its arms, one a seed."""
    seeds: tuple[int, ...]
    command: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the row is known by, whatever its place in the table."""
        return self.method, self.backbone, self.data, self.ratio


@dataclass(frozen=True)
class RecordedTable:
    name: str
    caption: str
    arms: Mapping[str, Mapping[str, Any]]
    """Settings, seed, kept blocks, code and commit of every arm, by its folder."""
    rows: tuple[RecordedRow, ...]

    @staticmethod
    def read(path: Path) -> "RecordedTable":
        """Raises UserError for a file that no table left."""
        try:
            content = read_json(path)
            rows = tuple(row_of(row, content["arms"]) for row in content["rows"])
            return RecordedTable(content["table"], content["caption"], content["arms"], rows)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not the provenance of a table ({error!r}); build the table again") from None


def row_of(row: Mapping[str, Any], arms: Mapping[str, Any]) -> RecordedRow:
    cells = {
        name: RecordedCell(cell["value"], cell["std"], cell["quartiles"], tuple(cell["sources"]))
        for name, cell in row["cells"].items()
    }
    folders = tuple(dict.fromkeys(source["arm"] for cell in cells.values() for source in cell.sources))
    cards = tuple({"arm": arm, "file": f"{arm}/final/model.json", "key": "kept_blocks"} for arm in folders)
    return RecordedRow(
        method=row["method"],
        backbone=row["backbone"],
        data=row["data"],
        ratio=row["ratio"],
        cells={"blocks": RecordedCell(int(row["blocks"].partition("/")[0]), sources=cards)} | cells,
        arms=folders,
        seeds=tuple(arms[folder]["seed"] for folder in folders),
        command=row["command"],
    )


def read_tables(folder: Path) -> dict[str, RecordedTable]:
    """Every table of a ``tables`` folder, by name; none where there is no such folder."""
    return {path.name.removesuffix(SUFFIX): RecordedTable.read(path) for path in sorted(folder.glob(f"*{SUFFIX}"))}


def located(file: str, study: Path) -> Path:
    """Where a file that was cited as results/<name>/... lies in ``study``, a folder laid out like results/<name>."""
    return study.joinpath(*Path(file).parts[2:])
