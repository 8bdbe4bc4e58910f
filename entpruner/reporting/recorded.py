"""Tables read back from their provenance files: what ``verify`` compares and ``trace`` follows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import PROVENANCE, Layout
from entpruner.params.base import Frozen
from entpruner.reporting.columns import Cell
from entpruner.system.files import read_json


class Row(Frozen):
    """What a table's row is about."""

    method: str
    backbone: str
    data: str
    ratio: str
    """As the table shows it: 50%, or a dash."""
    seeds: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the row is known by, whatever its place in the table and its seeds."""
        return self.method, self.backbone, self.data, self.ratio


class RecordedRow(Row):
    cells: dict[str, Cell]
    """By column, in the table's own names; ``blocks``, the number of blocks kept, is one of them."""
    arms: tuple[str, ...]
    """Folders of its arms, one a seed."""
    command: str


class RecordedTable(Frozen):
    name: str
    arms: dict[str, dict[str, Any]]
    """Settings, seed, kept blocks, code and commit of every arm, by its folder."""
    rows: tuple[RecordedRow, ...]

    @staticmethod
    def read(path: Path) -> "RecordedTable":
        """Raises UserError for a file that no table left."""
        try:
            content = read_json(path)
            rows = tuple(row_of(row, content["arms"]) for row in content["rows"])
            return RecordedTable(name=content["table"], arms=content["arms"], rows=rows)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not the provenance of a table ({error!r}); build the table again") from None


def row_of(row: Mapping[str, Any], arms: Mapping[str, Any]) -> RecordedRow:
    sources = (source for cell in row["cells"].values() for source in cell["sources"])
    folders = tuple(dict.fromkeys(source["arm"] for source in sources))
    cards = [{"arm": arm, "file": card_of(Path(arm)), "key": "kept_blocks"} for arm in folders]
    blocks = {"value": int(row["blocks"].partition("/")[0]), "sources": cards}
    return RecordedRow(
        **{name: row[name] for name in ("method", "backbone", "data", "ratio", "command")},
        cells={"blocks": blocks} | row["cells"],
        arms=folders,
        seeds=tuple(arms[folder]["seed"] for folder in folders),
    )


def card_of(arm: Path) -> str:
    """The card of the final network of the arm in this folder."""
    return Layout.at(arm.parents[1]).final(arm.name).files["card"].as_posix()


def read_tables(folder: Path) -> dict[str, RecordedTable]:
    """Every table of a ``tables`` folder, by name; none where there is no such folder."""
    files = sorted(folder.glob(f"*{PROVENANCE}"))
    return {file.name.removesuffix(PROVENANCE): RecordedTable.read(file) for file in files}


def within(file: str) -> str:
    """The path within its study of a file that was cited as results/<study>/..."""
    return file.split("/", 2)[2]
