"""The result of an arm: the documents that its rules wrote, from which tables take their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.evaluation.cost import cost_key
from entpruner.layout import WITHIN
from entpruner.models.checkpoints import ModelCard
from entpruner.params.reporting import ColumnName
from entpruner.reporting.records import Records
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
    """By name: the metrics of its samples (``metrics``), the backbone's cost (``cost``), steps, FLOPs and seconds of
    the arm (``training``) and of moving the backbone to the data before it (``adaptation``), the metrics of the network
    right after the last cut (``cut``). An arm has no adaptation if it begins with the pre-trained network, no cut if it
    is not pruned."""
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


def result_of(records: Records, cited: Path, arm: ArmIdentity, columns: Sequence[ColumnName]) -> ArmResult:
    """An arm and the documents that its cells of these columns come from, cited as files of the folder ``cited``."""
    final = WITHIN.final(arm.key).files
    card = ModelCard.model_validate(records[final["card"]])
    paths = {
        "metrics": WITHIN.metrics(arm.key).path,
        "cost": WITHIN.cost(arm.backbone, arm.data).path,
        "training": final["timing"],
    }
    if arm.adapted:
        paths["adaptation"] = WITHIN.adapted(arm.backbone, arm.data, arm.seed).files["timing"]
    if "distance_before" in columns and arm.schedule != "none":
        paths["cut"] = WITHIN.metrics(arm.key, "cut-").path
    training = records[paths["training"]]
    return ArmResult(
        artefact=(cited / WITHIN.arm(arm.key)).as_posix(),
        kept_blocks=card.kept_blocks,
        network=cost_key(len(card.kept_blocks), card.adapter_width),
        documents={name: Document((cited / path).as_posix(), records[path]) for name, path in paths.items()},
        settings={
            "training": training["settings"],
            "sampling": records[WITHIN.samples(arm.key).files["timing"]]["settings"],
            "evaluation": records[WITHIN.metrics_timing(arm.key).path]["settings"],
        },
        code=training["code"],
        commit=training["commit"] or "unknown",
        **dict(arm),
    )
