"""Build one table of the paper from the files that the arms' rules wrote."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.evaluation.cost import cost_key
from entpruner.models.checkpoints import ModelCard
from entpruner.params.reporting import ColumnName
from entpruner.reporting.reference import Reference
from entpruner.reporting.results import ArmResult, Document
from entpruner.reporting.tables import build
from entpruner.rules.report import TableSettings
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json


def run(settings: TableSettings, *, results: Path, reference: Path, out: Path) -> None:
    found = [result_of(results, arm, settings.columns) for arm in settings.arms]
    names = list(dict.fromkeys(arm.name for arm in settings.arms))
    table = build(
        settings.name,
        settings.caption,
        settings.columns,
        names,
        found,
        Reference.read(reference),
        distance=settings.distance,
        command=settings.command,
    )
    table.write(out)


def result_of(results: Path, arm: ArmIdentity, columns: Sequence[ColumnName]) -> ArmResult:
    """An arm and the documents that its cells come from."""
    folder = results / "arms" / arm.key
    card = ModelCard.model_validate(read_json(folder / "final/model.json"))
    training = Document.read(folder / "final/timing.json")
    documents = {
        "metrics": Document.read(folder / "metrics.json"),
        "cost": Document.read(results / "cost" / f"{arm.backbone}-{arm.data}.json"),
        "training": training,
    }
    if arm.adapted:
        adaptation = results / "adapt" / f"{arm.backbone}-{arm.data}-s{arm.seed}"
        documents["adaptation"] = Document.read(adaptation / "timing.json")
    if "distance_before" in columns and arm.schedule != "none":
        documents["cut"] = Document.read(folder / "cut-metrics.json")
    settings = {
        "training": training.content["settings"],
        "sampling": read_json(folder / "samples/timing.json")["settings"],
        "evaluation": read_json(folder / "metrics.timing.json")["settings"],
    }
    fields = {name: getattr(arm, name) for name in ArmIdentity.model_fields if name not in ("name", "start")}
    return ArmResult(
        arm=arm.name,
        artefact=folder.as_posix(),
        kept_blocks=card.kept_blocks,
        network=cost_key(len(card.kept_blocks), card.adapter_width),
        documents=documents,
        settings=settings,
        code=training.content["code"],
        commit=training.content["commit"] or "unknown",
        **fields,
    )
