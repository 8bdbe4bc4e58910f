"""A finished run's numbers as small text that git keeps and ``dvc metrics`` and ``dvc plots`` compare.

python -m entpruner.reporting.publish results/digits results/published/digits
"""

import csv
import json
import shutil
import sys
from pathlib import Path

from entpruner.artefacts import read_json, whole_folder, write_json
from entpruner.errors import UserError


def publish(results: Path, target: Path) -> None:
    """Write metrics/<arm>.json, curves/<arm>.csv, cost/, figures/ and tables/ to ``target``, in place of older ones.

    Raises UserError, and changes nothing, if no arm of ``results`` has been evaluated.
    """
    evaluated = sorted(results.glob("arms/*/metrics.json"))
    if not evaluated:
        raise UserError(f"{results}/arms: no arm has a metrics.json to publish; run: make results")
    with whole_folder(target) as partial:
        (partial / "curves").mkdir()
        for metrics in evaluated:
            arm = metrics.parent
            write_json(partial / "metrics" / f"{arm.name}.json", read_json(metrics))
            write_curve(arm, partial / "curves" / f"{arm.name}.csv")
        for folder in ("cost", "figures", "tables"):  # cost tells the machine too
            if (results / folder).exists():
                shutil.copytree(results / folder, partial / folder, ignore=shutil.ignore_patterns("*.svg", "*.html"))


def write_curve(arm: Path, target: Path) -> None:
    """Step and loss of an arm's training, its stages in a row."""
    lines = [line for file in arm.glob("*/curve.jsonl") for line in file.read_text().splitlines()]
    losses = {point["step"]: point["loss"] for point in map(json.loads, lines)}
    with target.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "loss"), *sorted(losses.items())])


if __name__ == "__main__":
    try:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(f"error: {error}")
