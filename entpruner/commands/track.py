"""Bring MLflow's view up to date with the arms' files."""

from pathlib import Path
from typing import Any

from entpruner.evaluation.cost import cost_key
from entpruner.models.checkpoints import ModelCard
from entpruner.params.base import Frozen
from entpruner.reporting.stages import curve_of, stage_folders
from entpruner.reporting.tracking import RunRecord, sync
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json, write_json


class Settings(Frozen):
    study: str
    captions: dict[str, str]
    """The caption of each table, by its name."""
    arms: dict[str, tuple[ArmIdentity, ...]]
    """The arms that are listed under each table. An arm of several tables is listed under the first of them."""


def run(settings: Settings, *, results: Path, database: Path, artifacts: Path, out: Path) -> None:
    records = []
    for table, caption in settings.captions.items():
        parent = f"{settings.study}/{table}"
        shown = [("table", results / "tables" / f"{table}.{suffix}") for suffix in ("csv", "md", "tex")]
        records.append(RunRecord(key=parent, name=table, files=shown, tags={"mlflow.note.content": caption}))
        records += [arm_record(settings.study, parent, results, arm) for arm in settings.arms[table]]
    counts = sync(settings.study, records, database, artifacts)
    write_json(out, {"runs": sorted(record.key for record in records), **counts})


def arm_record(study: str, parent: str, results: Path, arm: ArmIdentity) -> RunRecord:
    folder = results / "arms" / arm.key
    timing, cost = read_json(folder / "final/timing.json"), cost_of(results, arm)
    files = [("decisions/" + stage.name, stage / "decision.json") for stage in stage_folders(folder)]
    return RunRecord(
        key=f"{study}/{arm.key}",
        name=arm.key,
        parent=parent,
        settings=arm.model_dump(mode="json") | {"training": timing["settings"]["training"]},
        curve=curve_of(folder),
        metrics=read_json(folder / "metrics.json") | cost | {"training_flops": timing["total_flops"]},
        files=[*files, ("samples", folder / "samples/grid.png")],
        tags={"code": timing["code"], "commit": str(timing["commit"]), "checkpoint": (folder / "final").as_posix()},
    )


def cost_of(results: Path, arm: ArmIdentity) -> dict[str, Any]:
    card = ModelCard.model_validate(read_json(results / "arms" / arm.key / "final/model.json"))
    network = cost_key(len(card.kept_blocks), card.adapter_width)
    cost = read_json(results / "cost" / f"{arm.backbone}-{arm.data}.json")["blocks"][network]
    return {name: cost[name] for name in ("blocks", "parameters", "macs", "speedup", "seconds_per_image")}
