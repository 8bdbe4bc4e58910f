"""Prepare a data set: a source becomes a memory-mapped store."""

from pathlib import Path

from entpruner.data.sources import prepare
from entpruner.params import Dataset, Frozen


class Settings(Frozen):
    dataset: Dataset


def run(settings: Settings, *, out: Path) -> None:
    prepare(settings.dataset, out)
