"""Figure 8: training curves of arms, with their stages marked."""

import json
from pathlib import Path

from entpruner.arms import ArmIdentity
from entpruner.artefacts import read_json
from entpruner.params import Frozen
from entpruner.reporting.figures import Curve, curves


class Settings(Frozen):
    arms: tuple[ArmIdentity, ...]


def run(settings: Settings, *, results: Path, out: Path) -> None:
    """``out`` has no suffix."""
    found = []
    for arm in settings.arms:
        ratio = "" if arm.ratio is None else f" {arm.ratio:.0%}"
        points = curve_of(results / "arms" / arm.key)
        found.append(Curve(f"{arm.backbone}, {arm.data}", arm.label + ratio, points))
    curves(found, out)


def curve_of(folder: Path) -> list[dict[str, float]]:
    """The points of all stages and the recovery, in the order of their steps."""
    files = [part / "curve.jsonl" for part in (*stage_folders(folder), folder / "final")]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def stage_folders(folder: Path) -> list[Path]:
    """The folders of an arm's stages in their order; those left from a study with more stages are not among them."""
    recovery = read_json(folder / "final/timing.json")["settings"]["stage"]
    return [folder / f"stage{stage}" for stage in range(1, recovery)]
