"""Bring MLflow's runs up to date with the files of the arms."""

from pathlib import Path

from entpruner.layout import DECISION, Layout
from entpruner.reporting.records import Records
from entpruner.reporting.results import curve_of, result_of, stage_folders
from entpruner.reporting.tracking import RunRecord, open_on_arms, sync
from entpruner.rules.report import TrackSettings
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import write_json

COSTS = ("blocks", "parameters", "macs", "speedup", "seconds_per_image")
SHOWN_SETTINGS, SHOWN_METRICS = ("label", "backbone", "ratio", "seed"), ("agreement", "blocks", "speedup")
"""The columns with which MLflow's page opens, beside the distance."""


def run(settings: TrackSettings, *, results: Path, database: Path, artifacts: Path, out: Path) -> None:
    records = []
    for table, caption in settings.captions.items():
        parent = f"{settings.study}/{table}"
        made = Layout.at(results).table(table).files
        shown = [("table", made[kind]) for kind in ("csv", "md", "tex")]
        records.append(RunRecord(key=parent, name=table, files=shown, tags={"mlflow.note.content": caption}))
        records += [arm_record(settings.study, parent, results, arm) for arm in settings.arms[table]]
    counts = sync(settings.study, records, database, artifacts)
    page = open_on_arms(settings.study, database, SHOWN_SETTINGS, (settings.distance, *SHOWN_METRICS))
    write_json(out, {"runs": sorted(record.key for record in records), "page": page, **counts})


def arm_record(study: str, parent: str, results: Path, arm: ArmIdentity) -> RunRecord:
    """The run of an arm, below the run of its table."""
    paths = Layout.at(results)
    folder = paths.arm(arm.key)
    result = result_of(Records(results), results, arm, columns=())
    metrics, costs, timing = (result.documents[name].content for name in ("metrics", "cost", "training"))
    cost = {name: costs["blocks"][result.network][name] for name in COSTS}
    files = [("decisions/" + stage.name, stage / DECISION) for stage in stage_folders(folder)]
    return RunRecord(
        key=f"{study}/{arm.key}",
        name=arm.key,
        parent=parent,
        settings=arm.model_dump(mode="json") | {"training": timing["settings"]["training"]},
        curve=curve_of(folder),
        metrics={**metrics, **cost, "training_flops": timing["total_flops"]},
        files=[*files, ("samples", paths.samples(arm.key).files["grid"])],
        tags={
            "code": timing["code"],
            "commit": str(timing["commit"]),
            "checkpoint": paths.final(arm.key).path.as_posix(),
        },
    )
