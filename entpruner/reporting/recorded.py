"""Tables that are read back from their provenance files, for ``entpruner verify`` and ``entpruner trace``."""

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
    """What identifies a row of a table."""

    method: str
    backbone: str
    data: str
    ratio: str
    """The ratio in the form that the table shows, such as 50%, or a dash for an unpruned arm."""
    seeds: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The key by which rows of two tables are matched. It does not depend on the order of rows or on the seeds."""
        return self.method, self.backbone, self.data, self.ratio


class RecordedRow(Row):
    """A row with its cells and where they come from."""

    cells: dict[str, Cell]
    """The name of a column, as in the CSV -> its cell. The number of kept blocks is the column ``blocks``."""
    arms: tuple[str, ...]
    """The folders of the row's arms, one for each seed."""
    command: str
    """The command that makes the row."""


class RecordedTable(Frozen):
    """A table with all that its provenance file says."""

    name: str
    arms: dict[str, dict[str, Any]]
    """The folder of an arm -> its settings, seed, kept blocks, digest of the code, and commit."""
    rows: tuple[RecordedRow, ...]

    @staticmethod
    def read(path: Path) -> "RecordedTable":
        """Read a provenance file. Raises UserError if it is not one."""
        try:
            content = read_json(path)
            rows = tuple(row_of(row, content["arms"]) for row in content["rows"])
            return RecordedTable(name=content["table"], arms=content["arms"], rows=rows)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not the provenance of a table ({error!r}); build the table again") from None


def row_of(row: Mapping[str, Any], arms: Mapping[str, Any]) -> RecordedRow:
    """A row of a provenance file. ``arms`` are the arms of its table."""
    sources = (source for cell in row["cells"].values() for source in cell["sources"])
    folders = tuple(dict.fromkeys(source["arm"] for source in sources))
    finals = [Layout.at(Path(arm).parents[1]).final(Path(arm).name).files for arm in folders]
    cards = [
        {"arm": arm, "file": final["card"].as_posix(), "key": "kept_blocks"}
        for arm, final in zip(folders, finals, strict=True)
    ]
    blocks = {"value": int(row["blocks"].partition("/")[0]), "sources": cards}
    return RecordedRow(
        **{name: row[name] for name in ("method", "backbone", "data", "ratio", "command")},
        cells={"blocks": blocks} | row["cells"],
        arms=folders,
        seeds=tuple(arms[folder]["seed"] for folder in folders),
    )


def read_tables(folder: Path) -> dict[str, RecordedTable]:
    """Read every table of a folder, by name. A folder that does not exist has none."""
    files = sorted(folder.glob(f"*{PROVENANCE}"))
    return {file.name.removesuffix(PROVENANCE): RecordedTable.read(file) for file in files}


def within(file: str) -> str:
    """The path within its study of a file that a table cites as results/<study>/..."""
    return file.split("/", 2)[2]
