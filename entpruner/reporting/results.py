"""The result of an arm: the documents that its rules wrote, from which tables take their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entpruner.study.arms import ArmIdentity


@dataclass(frozen=True)
class Document:
    """A JSON document that cells are read from."""

    path: str
    """The file that a table cites for it."""
    content: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """What stands at a dotted key; None where nothing does."""
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


class ArmResult(ArmIdentity):
    """What an arm was with one seed, and the documents that say what came of it."""

    artefact: str
    """Its folder: results/<study>/arms/<arm>-..."""
    kept_blocks: tuple[int, ...]
    network: str
    """Its network's key in the cost document."""
    documents: dict[str, Document]
    """By name: metrics.json (``metrics``), the backbone's cost (``cost``), steps, FLOPs and seconds of the arm
    (``training``) and of moving the backbone to the data before it (``adaptation``), metrics.json of the network right
    after the last cut (``cut``). An arm has no adaptation if it begins with the pre-trained network, no cut if it is
    not pruned."""
    settings: dict[str, Any]
    """The resolved settings that its rules were given."""
    code: str
    """Digest of the package files that made it."""
    commit: str
    """Git commit that it was made at."""

    @property
    def row(self) -> tuple[Any, ...]:
        """What all seeds of a row of a table have in common."""
        return self.name, self.backbone, self.data, self.ratio
