"""A table of a study: which arms it shows, and their results from the documents that their rules wrote."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.evaluation.cost import cost_key
from entpruner.models.checkpoints import ModelCard
from entpruner.params.reporting import ColumnName
from entpruner.reporting.records import Records
from entpruner.reporting.reference import Reference
from entpruner.reporting.results import ArmResult, Document
from entpruner.reporting.tables import ReportTable, build
from entpruner.rules.report import TableSettings
from entpruner.study.arms import ArmIdentity


def table_from(records: Records, settings: TableSettings, *, results: Path, reference: Path) -> ReportTable:
    """The table of a study whose documents are ``records``; it cites them as files of the folder ``results``."""
    return build(
        settings.name,
        settings.caption,
        settings.columns,
        list(dict.fromkeys(arm.name for arm in settings.arms)),
        [result_of(records, results, arm, settings.columns) for arm in settings.arms],
        Reference.read(reference),
        distance=settings.distance,
        command=settings.command,
    )


def result_of(records: Records, results: Path, arm: ArmIdentity, columns: Sequence[ColumnName]) -> ArmResult:
    """An arm and the documents that its cells come from."""
    folder = f"arms/{arm.key}"
    card = ModelCard.model_validate(records[f"{folder}/final/model.json"])
    paths = {
        "metrics": f"{folder}/metrics.json",
        "cost": f"cost/{arm.backbone}-{arm.data}.json",
        "training": f"{folder}/final/timing.json",
    }
    if arm.adapted:
        paths["adaptation"] = f"adapt/{arm.backbone}-{arm.data}-s{arm.seed}/timing.json"
    if "distance_before" in columns and arm.schedule != "none":
        paths["cut"] = f"{folder}/cut-metrics.json"
    training = records[paths["training"]]
    return ArmResult(
        artefact=(results / folder).as_posix(),
        kept_blocks=card.kept_blocks,
        network=cost_key(len(card.kept_blocks), card.adapter_width),
        documents={name: Document((results / path).as_posix(), records[path]) for name, path in paths.items()},
        settings={
            "training": training["settings"],
            "sampling": records[f"{folder}/samples/timing.json"]["settings"],
            "evaluation": records[f"{folder}/metrics.timing.json"]["settings"],
        },
        code=training["code"],
        commit=training["commit"] or "unknown",
        **dict(arm),
    )
