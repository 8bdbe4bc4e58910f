"""Copy what is small of a finished run to results/published, where git keeps it and its tables can be rebuilt.

python -m entpruner.reporting.publish results/digits results/published/digits
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import torch
import yaml
from packaging.requirements import Requirement

from entpruner.errors import UserError
from entpruner.layout import BUNDLE, COMPARED, CURVES, MACHINE, METRICS, PROVENANCE, WITHIN, Layout
from entpruner.reporting.records import Records, files_of, is_trained
from entpruner.reporting.stages import curve_of
from entpruner.reporting.tabular import write_csv
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import processor_name

COPIED = (".csv", ".md", ".tex", PROVENANCE, ".png")
"""The ends of the names of files that are published as they are, if they lie among tables, figures or the audit."""

SHOWN_BY_DVC = {
    "metrics": [METRICS],
    "plots": [{CURVES: {"x": "step", "y": "loss", "template": "arms", "title": "Training loss"}}],
}
"""What ``dvc metrics`` and ``dvc plots`` show; the plot's template is .dvc/plots/arms.json."""


def publish(results: Path, target: Path) -> None:
    """Write the published form of the study in ``results`` to ``target``, which replaces an older one.

    Tables, figures and the audit's report keep their places. All other JSON documents become lines of one bundle.
    Beside them stand what is known of the machine and, for DVC, the metrics and the training curves of all arms. Raises
    UserError, and changes nothing, if no arm of ``results`` has been evaluated.
    """
    records, arms = Records(results), Layout.at(results).arms
    found = records.matching(WITHIN.metrics("*").path)
    metrics = {Path(path).parent.name: content for path, content in found.items()}
    if not metrics:
        raise UserError(f"{arms}: no arm has a {METRICS} to publish; run: make results")
    with whole_folder(target) as partial:
        copied = [path.as_posix() for path in files_of(results) if is_shown(path)]
        for path in copied:
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(results / path, partial / path)
        write_bundle(records, set(records).difference(copied), partial / BUNDLE)
        write_json(partial / METRICS, metrics)
        points = ((arm, point["step"], point["loss"]) for arm in metrics for point in curve_of(arms / arm))
        write_csv(partial / CURVES, ("arm", "step", "loss"), points)
        write_json(partial / MACHINE, machine(records))
        (partial / COMPARED).write_text(yaml.safe_dump(SHOWN_BY_DVC, sort_keys=False))


def is_shown(path: Path) -> bool:
    """Whether a path within a study is of a file that people read."""
    return path.name.endswith(COPIED) and any(map(path.is_relative_to, (WITHIN.tables, WITHIN.figures, WITHIN.audits)))


def write_bundle(records: Records, paths: Iterable[str], target: Path) -> None:
    """One line a document, sorted by path, so that a change of one document is a change of one line."""
    lines = ({"file": path, "record": records[path]} for path in sorted(paths))
    target.write_text("".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines))


def machine(records: Records) -> dict[str, Any]:
    """What is known of the machine: devices and versions as the commands recorded them, and the run's size.

    The commands did not record cores, memory, system and libraries. These are told of this machine, and only if all
    commands ran on a device of this name and with this Python and torch.
    """
    timings = records.timings().values()
    said: dict[str, Any] = {
        key: sorted({timing[key] for timing in timings}) for key in ("device", "python", "torch", "threads")
    }
    said["commit"] = sorted({str(timing["commit"]) for timing in timings if "commit" in timing})
    sizes = {path.as_posix(): (records.folder / path).stat().st_size for path in files_of(records.folder)}
    measured = sum(size for path, size in sizes.items() if not is_trained(path))
    said["bytes"] = {"all": sum(sizes.values()), "measured": measured}
    devices = {processor_name(), *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))}
    same = [{platform.python_version()}, {torch.__version__}] == [set(said["python"]), set(said["torch"])]
    if same and set(said["device"]) <= devices:
        said |= {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.platform(),
            "libraries": libraries(),
        }
    return said


def libraries() -> dict[str, str]:
    """Installed versions of what this package depends on."""
    needed = map(Requirement, requires("entpruner") or [])
    return {requirement.name: version(requirement.name) for requirement in needed if not requirement.marker}


if __name__ == "__main__":
    try:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(f"error: {error}")
