"""An arm's stages on disk, and the training curve that they make up."""

import json
from pathlib import Path

from entpruner.system.files import read_json


def curve_of(folder: Path) -> list[dict[str, float]]:
    """The points of all stages and the recovery, in the order of their steps."""
    files = [part / "curve.jsonl" for part in (*stage_folders(folder), folder / "final")]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def stage_folders(folder: Path) -> list[Path]:
    """The folders of an arm's stages in their order; those left from a study with more stages are not among them."""
    recovery = read_json(folder / "final/timing.json")["settings"]["stage"]
    return [folder / f"stage{stage}" for stage in range(1, recovery)]
