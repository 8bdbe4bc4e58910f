"""Prepare a data set: a source becomes a memory-mapped store."""

from pathlib import Path

from entpruner.data.sources import prepare
from entpruner.params.base import Frozen
from entpruner.params.datasets import Dataset


class Settings(Frozen):
    dataset: Dataset


def run(settings: Settings, *, threads: int = 1, out: Path) -> None:
    """The number of threads is not one of the settings, because the store does not depend on it."""
    prepare(settings.dataset, out, threads)
