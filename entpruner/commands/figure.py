"""Draw one figure, of block scores or of arms, from the files that their rules wrote."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.layout import Layout
from entpruner.models.checkpoints import ModelCard
from entpruner.reporting.arm_figures import (
    Curve,
    DistanceRow,
    KeptBlocks,
    curves,
    distance_vs_ratio,
    kept_blocks,
    samples,
)
from entpruner.reporting.monitor_figure import DECAYS, OPTIMIZERS, Monitored, monitored_trainings
from entpruner.reporting.results import curve_of
from entpruner.reporting.score_figures import ced_by_block, ced_by_timestep, entropy_vs_loss
from entpruner.reporting.words import spoken
from entpruner.rules.report import FigureSettings
from entpruner.scores import Scores
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json


def run(settings: FigureSettings, *, results: Path, out: Path) -> None:
    """Draw ``<out>.png`` and ``<out>.svg`` from files in ``results``, the folder of the study.

    Raises UserError if the figure has nothing to show.
    """
    if not settings.backbones and not settings.arms:
        raise UserError(f"figure {out.name}: none of its arms is left; see its key `only`")
    paths, arms = Layout.at(results), settings.arms
    match settings.kind:
        case "entropy_vs_loss":
            entropy_vs_loss(scores("ced", settings, paths), scores("sensitivity", settings, paths), out)
        case "ced_by_block":
            ced_by_block(scores("ced", settings, paths), out)
        case "ced_by_timestep":
            ced_by_timestep(scores("ced", settings, paths), out)
        case "curves":
            found = [Curve(panel(a), f"{a.label}{percent(a)}", curve_of(paths.arm(a.key))) for a in arms]
            curves(found, out)
        case "samples":
            draw_samples(arms, paths, out)
        case "kept_blocks":
            kept_blocks([KeptBlocks(row_label(arm, arms), kept(arm, paths), arm.depth) for arm in arms], out)
        case "monitor":
            monitored_trainings([monitored(arm, paths) for arm in arms], out)
        case "distance_vs_ratio":
            draw_distance_vs_ratio(arms, paths, settings.distance, out)


def scores(criterion: str, settings: FigureSettings, paths: Layout) -> dict[str, Scores]:
    """The scores by ``criterion`` of each backbone of the figure, whose title it is."""
    made = {spoken(name): paths.scores(name, settings.data, settings.seed, criterion) for name in settings.backbones}
    return {name: Scores.from_json(read_json(scored.files["scores"])) for name, scored in made.items()}


def draw_samples(arms: Sequence[ArmIdentity], paths: Layout, out: Path) -> None:
    """Draw real images, and the samples of the arms below them. Raises UserError if the arms have several data sets."""
    first, *others = dict.fromkeys(arm.data for arm in arms)
    if others:
        raise UserError(f"figure {out.name}: its arms are of {', '.join([first, *others])}; see its key `only`")
    data = Store.open(paths.pixels(first).path)
    made = [(row_label(arm, arms), Store.open(paths.samples(arm.key).path).split("samples")) for arm in arms]
    samples([("real", data.split("train")), *made], data.class_names, out)


def monitored(arm: ArmIdentity, paths: Layout) -> Monitored:
    """What the training of an arm read. Arms with the same optimizer share a panel."""
    timing = read_json(paths.final(arm.key).files["timing"])
    training = timing["settings"]["training"]
    removed = "" if arm.ratio is None else f", {arm.ratio:.0%} removed"
    label = DECAYS[training["decay"]] + removed
    return Monitored(OPTIMIZERS[training["optimizer"]], label, timing["monitor"]["readings"])


def kept(arm: ArmIdentity, paths: Layout) -> tuple[int, ...]:
    """The blocks of the arm's final network."""
    return ModelCard.model_validate(read_json(paths.final(arm.key).files["card"])).kept_blocks


def draw_distance_vs_ratio(arms: Sequence[ArmIdentity], paths: Layout, distance: str, out: Path) -> None:
    """Draw the distances of the arms. The seeds of an arm at one ratio become one row."""
    seeds: dict[tuple[str, str, float | None], list[float]] = {}
    for arm in arms:
        found = read_json(paths.metrics(arm.key).path)[distance]
        seeds.setdefault((panel(arm), arm.label, arm.ratio), []).append(found)
    distance_vs_ratio([DistanceRow(*row, distances) for row, distances in seeds.items()], distance, out)


def panel(arm: ArmIdentity) -> str:
    return f"{spoken(arm.backbone)}, {spoken(arm.data)}"


def percent(arm: ArmIdentity) -> str:
    return "" if arm.ratio is None else f" {arm.ratio:.0%}"


def row_label(arm: ArmIdentity, arms: Sequence[ArmIdentity]) -> str:
    """The backbone, label and ratio of an arm. Its data and its seed follow if they differ between the arms of the
    figure."""
    data = f" {arm.data}" if len({other.data for other in arms}) > 1 else ""
    seed = f" s{arm.seed}" if len({other.seed for other in arms}) > 1 else ""
    return f"{spoken(arm.backbone)} {arm.label}{percent(arm)}{data}{seed}"
