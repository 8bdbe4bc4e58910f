"""Samples of arms side by side, from the same noise, below real images."""

from pathlib import Path

from entpruner.arms import ArmIdentity
from entpruner.data.store import Store
from entpruner.params import Frozen
from entpruner.reporting.figures import SampleRow, samples


class Settings(Frozen):
    arms: tuple[ArmIdentity, ...]
    """All on one data set."""


def run(settings: Settings, *, results: Path, store: Path, out: Path) -> None:
    """``out`` has no suffix."""
    data = Store.open(store)
    real = data.split("train")
    rows = [SampleRow("real", real.images, real.labels)]
    for arm in settings.arms:
        generated = Store.open(results / "arms" / arm.key / "samples").split("samples")
        ratio = "" if arm.ratio is None else f" {arm.ratio:.0%}"
        rows.append(SampleRow(f"{arm.backbone} {arm.label}{ratio}", generated.images, generated.labels))
    samples(rows, data.class_names, out)
