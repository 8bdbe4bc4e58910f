"""Prepare a data set: a source becomes a memory-mapped store."""

from pathlib import Path

from entpruner.data.sources import prepare
from entpruner.rules.data import DataSettings


def run(settings: DataSettings, *, threads: int = 1, out: Path) -> None:
    """The number of threads is none of the settings: another one makes the same store."""
    prepare(settings.dataset, out, threads)
