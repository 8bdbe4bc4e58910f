"""The results of an arm: the documents that its rules wrote, from which tables take their numbers, and its curve."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.evaluation.cost import cost_key
from entpruner.layout import CURVE, WITHIN, Layout
from entpruner.models.checkpoints import ModelCard
from entpruner.params.reporting import ColumnName
from entpruner.reporting.records import Records
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import intact, read_json


@dataclass(frozen=True)
class Document:
    """A JSON document from which the numbers of cells are read."""

    path: str
    """The file that a table cites as the source of the number."""
    content: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """The value at a dotted key, or None if there is no such key."""
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


class ArmResult(ArmIdentity):
    """An arm with one seed, and the documents of its results."""

    artefact: str
    """The folder of the arm: results/<study>/arms/<arm>-..."""
    kept_blocks: tuple[int, ...]
    classes: int
    """The number of classes of the data."""
    network: str
    """The key of the arm's final network in the cost document."""
    documents: dict[str, Document]
    """The documents by name. ``metrics`` has the metrics of the samples, and ``cost`` has the costs of the backbone.
    ``training`` has steps, FLOPs and seconds of the arm, and ``adaptation`` has those of the training that moved the
    backbone to the data; it is missing if the arm begins with the pre-trained network. ``cut`` has the metrics of the
    network right after the last cut; it is missing if the arm is not pruned, or if no column shows these metrics."""
    settings: dict[str, Any]
    """The resolved settings of the training, the sampling and the evaluation."""
    code: str
    """The digest of the code that trained the final network."""
    commit: str
    """The git commit at which the final network was trained."""

    @property
    def row(self) -> tuple[Any, ...]:
        """The fields that the seeds of a row of a table have in common."""
        return self.name, self.backbone, self.data, self.ratio


def result_of(records: Records, cited: Path, arm: ArmIdentity, columns: Sequence[ColumnName]) -> ArmResult:
    """The arm with the documents that its cells in these columns come from, cited as files of the folder ``cited``."""
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
        classes=len(card.class_names),
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


def curve_of(folder: Path) -> list[dict[str, float]]:
    """The logged points of all stages and of the recovery of the arm in ``folder``, in the order of their steps."""
    final = Layout.at(folder.parents[1]).final(folder.name).path
    files = [part / CURVE for part in (*stage_folders(folder), final)]
    return [json.loads(line) for file in files for line in intact(file).read_text().splitlines()]


def stage_folders(folder: Path) -> list[Path]:
    """The folders of the stages of the arm in ``folder``, without those that are left from a run with more stages."""
    paths, arm = Layout.at(folder.parents[1]), folder.name
    recovery = read_json(paths.final(arm).files["timing"])["settings"]["stage"]
    return [paths.stage(arm, stage).path for stage in range(1, recovery)]
