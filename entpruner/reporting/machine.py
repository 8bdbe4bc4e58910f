"""What a run took, and the machine that it ran on, from the records that its commands left."""

import os
import platform
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from entpruner.system.files import read_json
from entpruner.system.recording import processor_name

TRAINED = ("data", "classifier", "pretrain", "adapt", "scores", "arms/*/stage*", "arms/*/final")
"""Folders of a study that hold what measuring it begins from; whatever else it holds can be measured again."""

RECORDS = {
    "classifier": "classifier/*/timing.json",
    "pretrain": "pretrain/*/timing.json",
    "adapt": "adapt/*/timing.json",
    "score": "scores/*/*/timing.json",
    "prune": "arms/*/stage*/timing.json",
    "recover": "arms/*/final/timing.json",
    "sample": "arms/*/*samples/timing.json",
    "evaluate": "arms/*/*metrics.timing.json",
}
"""The commands that compute, by rule, and where in a study they leave their records of time."""


def timings(study: Path) -> dict[Path, Mapping[str, Any]]:
    """Every record of time in a study, by the path of its file within the study."""
    files = {file.relative_to(study): read_json(file) for file in sorted(study.rglob("*timing.json"))}
    within = sorted([*study.glob("cost/*.json"), *study.glob("audit/*/*.json")])
    return files | {file.relative_to(study): read_json(file)["timing"] for file in within}


def is_trained(path: Path) -> bool:
    """Whether a path within a study belongs to what measuring begins from."""
    return any(fnmatchcase(path.as_posix(), f"{pattern}/*") for pattern in TRAINED)


def files_of(study: Path) -> Iterator[Path]:
    """Paths within a study of all that its rules made, logs and half-written files left out."""
    for file in study.rglob("*"):
        path = file.relative_to(study)
        if file.is_file() and path.parts[0] != "logs" and not any(part.endswith(".partial") for part in path.parts):
            yield path


def describe(study: Path) -> dict[str, Any]:
    """The content of ``machine.json``: devices and versions as the commands recorded them, and the run's size.

    What they did not record (cores, memory, system, libraries) is told of this machine, and only if all of them ran
    on a device of this name and with this Python and torch.
    """
    records = timings(study).values()
    said: dict[str, Any] = {
        key: sorted({record[key] for record in records}) for key in ("device", "python", "torch", "threads")
    }
    said["commit"] = sorted({str(record["commit"]) for record in records if "commit" in record})
    sizes = {path: (study / path).stat().st_size for path in files_of(study)}
    said["bytes"] = {
        "all": sum(sizes.values()),
        "measured": sum(size for path, size in sizes.items() if not is_trained(path)),
    }
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
