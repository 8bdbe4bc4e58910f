"""Figure 8: training curves of arms, with their stages marked."""

from pathlib import Path

from entpruner.arms import ArmIdentity
from entpruner.commands.stages import curve_of
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
