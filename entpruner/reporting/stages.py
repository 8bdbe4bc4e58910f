"""The stages of an arm on disk, and the training curve that they make up."""

import json
from pathlib import Path

from entpruner.layout import CURVE, Layout
from entpruner.system.files import read_json


def curve_of(folder: Path) -> list[dict[str, float]]:
    """The points of all stages of the arm in ``folder`` and of its recovery, in the order of their steps."""
    final = Layout.at(folder.parents[1]).final(folder.name).path
    files = [part / CURVE for part in (*stage_folders(folder), final)]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def stage_folders(folder: Path) -> list[Path]:
    """The folders of the stages of the arm in ``folder``; those left from a study with more stages are left out."""
    paths, arm = Layout.at(folder.parents[1]), folder.name
    recovery = read_json(paths.final(arm).files["timing"])["settings"]["stage"]
    return [paths.stage(arm, stage).path for stage in range(1, recovery)]
