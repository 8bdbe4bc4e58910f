"""Draw one figure, of block scores or of arms, from the files that their rules wrote."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.models.checkpoints import ModelCard
from entpruner.reporting.arm_figures import (
    Curve,
    DistanceRow,
    KeptBlocks,
    SampleRow,
    curves,
    distance_vs_ratio,
    kept_blocks,
    samples,
)
from entpruner.reporting.score_figures import ced_by_block, ced_by_timestep, entropy_vs_loss
from entpruner.reporting.stages import curve_of
from entpruner.rules.report import FigureSettings
from entpruner.scores import Scores
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json


def run(settings: FigureSettings, *, results: Path, out: Path) -> None:
    """``out`` has no suffix."""
    if not settings.backbones and not settings.arms:
        raise UserError(f"figure {out.name}: none of its arms is left; see its key `only`")
    {
        "entropy_vs_loss": draw_entropy_vs_loss,
        "ced_by_block": draw_ced_by_block,
        "ced_by_timestep": draw_ced_by_timestep,
        "curves": draw_curves,
        "samples": draw_samples,
        "kept_blocks": draw_kept_blocks,
        "distance_vs_ratio": draw_distance_vs_ratio,
    }[settings.kind](settings, results, out)


# ------------------------------------------------------------------------------------------------------------- scores


def draw_entropy_vs_loss(settings: FigureSettings, results: Path, out: Path) -> None:
    ced, sensitivity = (scores(settings, results, criterion) for criterion in ("ced", "sensitivity"))
    entropy_vs_loss({backbone: (ced[backbone], sensitivity[backbone]) for backbone in settings.backbones}, out)


def draw_ced_by_block(settings: FigureSettings, results: Path, out: Path) -> None:
    ced_by_block(scores(settings, results, "ced"), out)


def draw_ced_by_timestep(settings: FigureSettings, results: Path, out: Path) -> None:
    ced_by_timestep(scores(settings, results, "ced"), out)


def scores(settings: FigureSettings, results: Path, criterion: str) -> dict[str, Scores]:
    """By backbone."""
    folders = {backbone: f"{backbone}-{settings.data}-s{settings.seed}" for backbone in settings.backbones}
    files = {backbone: results / "scores" / folder / criterion / "scores.json" for backbone, folder in folders.items()}
    return {backbone: Scores.from_json(read_json(file)) for backbone, file in files.items()}


# --------------------------------------------------------------------------------------------------------------- arms


def draw_curves(settings: FigureSettings, results: Path, out: Path) -> None:
    found = [
        Curve(panel(arm), f"{arm.label}{percent(arm)}", curve_of(results / "arms" / arm.key)) for arm in settings.arms
    ]
    curves(found, out)


def draw_samples(settings: FigureSettings, results: Path, out: Path) -> None:
    """Below real images of the arms' data. Raises UserError for arms of several data sets, whose classes differ."""
    first, *others = dict.fromkeys(arm.data for arm in settings.arms)
    if others:
        raise UserError(f"figure {out.name}: its arms are of {', '.join([first, *others])}; see its key `only`")
    data = Store.open(results / "data" / first)
    real = data.split("train")
    rows = [SampleRow("real", real.images, real.labels)]
    for arm in settings.arms:
        generated = Store.open(results / "arms" / arm.key / "samples").split("samples")
        rows.append(SampleRow(row_label(arm, settings.arms), generated.images, generated.labels))
    samples(rows, data.class_names, out)


def draw_kept_blocks(settings: FigureSettings, results: Path, out: Path) -> None:
    rows = []
    for arm in settings.arms:
        card = ModelCard.model_validate(read_json(results / "arms" / arm.key / "final/model.json"))
        rows.append(KeptBlocks(row_label(arm, settings.arms), card.kept_blocks, arm.depth))
    kept_blocks(rows, out)


def draw_distance_vs_ratio(settings: FigureSettings, results: Path, out: Path) -> None:
    seeds: dict[tuple[str, str, float | None], list[float]] = {}
    for arm in settings.arms:
        distance = read_json(results / "arms" / arm.key / "metrics.json")[settings.distance]
        seeds.setdefault((panel(arm), arm.label, arm.ratio), []).append(distance)
    distance_vs_ratio([DistanceRow(*row, distances) for row, distances in seeds.items()], settings.distance, out)


def panel(arm: ArmIdentity) -> str:
    return f"{arm.backbone}, {arm.data}"


def percent(arm: ArmIdentity) -> str:
    return "" if arm.ratio is None else f" {arm.ratio:.0%}"


def row_label(arm: ArmIdentity, arms: Sequence[ArmIdentity]) -> str:
    """Backbone, label and ratio; data and seed where the arms beside it have others."""
    data = f" {arm.data}" if len({other.data for other in arms}) > 1 else ""
    seed = f" s{arm.seed}" if len({other.seed for other in arms}) > 1 else ""
    return f"{arm.backbone} {arm.label}{percent(arm)}{data}{seed}"
