"""Build one table of the paper from the files that the arms' rules wrote."""

from pathlib import Path

from entpruner.arms import ArmIdentity
from entpruner.artefacts import read_json
from entpruner.evaluation.cost import cost_key
from entpruner.models.checkpoints import ModelCard
from entpruner.params import Frozen
from entpruner.reporting.tables import ArmResult, Document, Reference, build


class Settings(Frozen):
    name: str
    caption: str
    distance: str
    """The metric that is shown: fid, or fd_<extractor>."""
    command: str
    """What makes a row, its targets to be appended."""
    arms: tuple[ArmIdentity, ...]


def run(settings: Settings, *, results: Path, reference: Path, out: Path) -> None:
    found = [result_of(results, arm) for arm in settings.arms]
    names = list(dict.fromkeys(arm.name for arm in settings.arms))
    table = build(
        settings.name,
        settings.caption,
        names,
        found,
        Reference.read(reference),
        distance=settings.distance,
        command=settings.command,
    )
    table.write(out)


def result_of(results: Path, arm: ArmIdentity) -> ArmResult:
    """An arm and the documents that its cells come from."""
    folder = results / "arms" / arm.key
    card = ModelCard.model_validate(read_json(folder / "final/model.json"))
    training = Document.read(folder / "final/timing.json")
    documents = {
        "metrics": Document.read(folder / "metrics.json"),
        "cost": Document.read(results / "cost" / f"{arm.backbone}-{arm.data}.json"),
        "training": training,
    }
    settings = {
        "training": training.content["settings"],
        "sampling": read_json(folder / "samples/timing.json")["settings"],
        "evaluation": read_json(folder / "metrics.timing.json")["settings"],
    }
    fields = {name: getattr(arm, name) for name in ArmIdentity.model_fields if name != "name"}
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
