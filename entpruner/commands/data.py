"""Prepare a data set: write the images of a source into a memory-mapped store."""

from pathlib import Path

from entpruner.data.sources import prepare
from entpruner.rules.data import DataSettings


def run(settings: DataSettings, *, threads: int = 1, out: Path) -> None:
    """``threads`` is not one of the settings, because the store does not depend on it."""
    prepare(settings.dataset, out, threads)
