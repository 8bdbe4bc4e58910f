"""Copy the small files of a finished run to results/published. Git keeps them, and tables can be built from them.

python -m entpruner.reporting.publish results/digits results/published/digits
"""

import json
import os
import platform
import shutil
import sys
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import torch
import yaml
from packaging.requirements import Requirement

from entpruner.errors import UserError
from entpruner.layout import BUNDLE, COMPARED, CURVES, MACHINE, METRICS, PROVENANCE, WITHIN, Layout
from entpruner.reporting.records import Records, files_of, is_trained
from entpruner.reporting.results import curve_of
from entpruner.reporting.tabular import write_csv
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import processor_name

SHOWN = WITHIN.tables, WITHIN.figures, WITHIN.compared, WITHIN.audits
COPIED = ".csv", ".md", ".tex", PROVENANCE, ".png"
"""The folders within a study, and the suffixes, of the files that are published unchanged."""

SHOWN_BY_DVC = {
    "metrics": [METRICS],
    "plots": [{CURVES: {"x": "step", "y": "loss", "template": "arms", "title": "Training loss"}}],
}
"""What ``dvc metrics`` and ``dvc plots`` show. The template of the plot is .dvc/plots/arms.json."""


def publish(results: Path, target: Path) -> None:
    """Write the published form of the study in ``results`` to the folder ``target``, which is replaced as a whole.

    Tables, figures and the audit's report keep their places within the study. All other JSON documents become lines of
    one bundle. Further files describe the machine, and contain the metrics and training curves of all arms for DVC,
    where the study has arms. Raises UserError, and changes nothing, if ``results`` has neither the metrics of an arm
    nor an audit's report.
    """
    records, arms = Records(results), Layout.at(results).arms
    found = records.matching(WITHIN.metrics("*").path)
    metrics = {Path(path).parent.name: content for path, content in found.items()}
    if not metrics and not (results / WITHIN.audit_report().path).exists():
        raise UserError(f"{arms}: no arm has a {METRICS} to publish, and there is no audit; run: make results")
    with whole_folder(target, with_checksums=False) as partial:  # git has its own
        shown = [path for path in files_of(results) if any(map(path.is_relative_to, SHOWN))]
        copied = [path.as_posix() for path in shown if path.name.endswith(COPIED)]
        for path in copied:
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(results / path, partial / path)
        # Each document is a line, and the lines are sorted by path, so git shows which documents have changed.
        bundled = ({"file": path, "record": records[path]} for path in records if path not in copied)
        lines = (json.dumps(document, sort_keys=True, allow_nan=False) + "\n" for document in bundled)
        (partial / BUNDLE).write_text("".join(lines))
        write_json(partial / MACHINE, machine(records))
        if metrics:
            write_json(partial / METRICS, metrics)
            points = ((arm, point["step"], point["loss"]) for arm in metrics for point in curve_of(arms / arm))
            write_csv(partial / CURVES, ("arm", "step", "loss"), points)
            (partial / COMPARED).write_text(yaml.safe_dump(SHOWN_BY_DVC, sort_keys=False))


def machine(records: Records) -> dict[str, Any]:
    """What is known of the machine: devices and versions, as the commands recorded them, and the size of the run.

    The commands do not record cores, memory, system and libraries. These are added from this machine, if all commands
    ran on a device with the same name and with the same versions of Python and torch.
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
    """The installed versions of the libraries that this package and its workflow depend on."""
    extras = ("", "latents", "report", "tracking", "versions", "workflow")

    def used(needed: Requirement) -> bool:
        return needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)

    names = {needed.name for needed in map(Requirement, requires("entpruner") or []) if used(needed)}
    return {name: version(name) for name in sorted(names - {"entpruner"})}


if __name__ == "__main__":
    try:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(f"error: {error}")
