"""A journal of what a long command has finished, so that the command can go on after it was killed."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entpruner.system.files import whole_file

log = logging.getLogger(__name__)


class Journal:
    """The results that a command has finished, by name. JSON records are lines of one file; each array has a file.

    All files lie in ``folder``. Their names begin with the ``fingerprint`` of all that the results depend on. Files
    with another fingerprint come from other settings, code or inputs, and are deleted. Several processes may keep
    arrays at the same time, but only one may write records. The command calls ``discard`` when its output is complete.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.prefix = folder, fingerprint[:16]
        for other in folder.glob("*.*"):
            if not other.name.startswith(self.prefix):
                log.info("%s is from other settings, code or inputs: deleted", other)
                other.unlink(missing_ok=True)
        self.file = folder / f"{self.prefix}.jsonl"
        self.done = whole_records(self.file)
        if kept := len(self.done) + len(list(folder.glob(f"{self.prefix}-*.npy"))):
            log.info("going on after %d records in %s", kept, folder)

    def record(self, name: str, job: Callable[[], Any]) -> Any:
        """The JSON record of this name. If there is none yet, ``job`` makes it, and it is kept."""
        if name not in self.done:
            line = json.dumps({"name": name, "record": job()}, allow_nan=False)
            with self.file.open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.done[name] = json.loads(line)["record"]
        return self.done[name]

    def array_file(self, name: str) -> Path:
        """The file that keeps the array of this name. It exists only if the array is complete."""
        return self.folder / f"{self.prefix}-{name}.npy"

    def keep(self, name: str, array: np.ndarray) -> None:
        with whole_file(self.array_file(name)) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    def discard(self) -> None:
        shutil.rmtree(self.folder)


def whole_records(file: Path) -> dict[str, Any]:
    """The records in the file of a journal. If the process was killed while it wrote a line, that line is cut off."""
    if not file.exists():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return {entry["name"]: entry["record"] for entry in map(json.loads, whole.splitlines())}
