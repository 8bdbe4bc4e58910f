"""What is small of a finished run, laid out as the run is, so that git keeps it and its tables can be rebuilt.

python -m entpruner.reporting.publish results/digits results/published/digits
"""

import csv
import shutil
import sys
from pathlib import Path

import yaml

from entpruner.errors import UserError
from entpruner.reporting.machine import describe, files_of
from entpruner.reporting.stages import curve_of
from entpruner.system.files import whole_folder, write_json

PUBLISHED = (  # no weights, images, states or logs
    "*/**/*.json",
    "tables/*.csv",
    "tables/*.md",
    "tables/*.tex",
    "figures/*.png",
    "audit/**/*.csv",
    "audit/**/*.md",
    "audit/**/*.png",
)


def publish(results: Path, target: Path) -> None:
    """Copy what is small of ``results`` to the same places in ``target``, which replaces an older one.

    Beside it: ``machine.json``, ``curves/<arm>.csv`` (JSON lines are no plot to DVC) and the ``dvc.yaml`` that lists
    both for ``dvc metrics`` and ``dvc plots``. Raises UserError, and changes nothing, if no arm of ``results`` has
    been evaluated.
    """
    evaluated = sorted(results.glob("arms/*/metrics.json"))
    if not evaluated:
        raise UserError(f"{results}/arms: no arm has a metrics.json to publish; run: make results")
    wanted = {file.relative_to(results) for pattern in PUBLISHED for file in results.glob(pattern)}
    with whole_folder(target) as partial:
        for path in sorted(wanted.intersection(files_of(results))):
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(results / path, partial / path)
        (partial / "curves").mkdir()
        for metrics in evaluated:
            write_curve(metrics.parent, partial / "curves" / f"{metrics.parent.name}.csv")
        write_json(partial / "machine.json", describe(results))
        compared = {
            "metrics": [metrics.relative_to(results).as_posix() for metrics in evaluated],
            "plots": [{"curves": {"x": "step", "y": "loss", "title": "Training loss"}}],
        }
        (partial / "dvc.yaml").write_text(yaml.safe_dump(compared, sort_keys=False))


def write_curve(arm: Path, target: Path) -> None:
    """Step and loss of an arm's training, its stages in a row."""
    points = [(point["step"], point["loss"]) for point in curve_of(arm)]
    with target.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "loss"), *points])


if __name__ == "__main__":
    try:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(f"error: {error}")
