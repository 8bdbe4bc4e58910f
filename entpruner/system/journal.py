"""Parts of a long command's work, kept as they are finished: a killed command goes on after the last whole one."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from entpruner.system.files import whole_file

log = logging.getLogger(__name__)


class Journal:
    """JSON records by name in ``folder``, a line each, under the ``fingerprint`` of all that they depend on.

    Records of another fingerprint (other settings, code, inputs) are not seen. ``discard`` it once the command's output
    is whole.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / f"{fingerprint[:16]}.jsonl"
        self.done = whole_records(self.file)
        if self.done:
            log.info("going on after %d records in %s", len(self.done), self.file)

    def record(self, name: str, job: Callable[[], Any]) -> Any:
        """The record of this name: read back, or what ``job`` now returns."""
        if name not in self.done:
            line = json.dumps({"name": name, "record": job()}, allow_nan=False)
            with self.file.open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.done[name] = json.loads(line)["record"]
        return self.done[name]

    def discard(self) -> None:
        shutil.rmtree(self.folder)


class Parts:
    """The ``count`` arrays that a result is put together from, each a file of ``folder``, under the same kind of
    fingerprint. Several processes may write side by side, each parts of its own.
    """

    def __init__(self, folder: Path, fingerprint: str, count: int) -> None:
        self.root, self.folder, self.count = folder, folder / fingerprint[:16], count
        self.folder.mkdir(parents=True, exist_ok=True)
        # When this process began: where several write, one of them must share out what is missing.
        self.missing = [part for part in range(count) if not self._file(part).exists()]
        if len(self.missing) < count:
            log.info("going on after %d of %d parts in %s", count - len(self.missing), count, self.folder)

    def write(self, part: int, array: np.ndarray) -> None:
        with whole_file(self._file(part)) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    def read(self, part: int) -> np.ndarray:
        """Mapped into memory, not read at once."""
        return np.load(self._file(part), mmap_mode="r", allow_pickle=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.read, range(self.count))

    def discard(self) -> None:
        shutil.rmtree(self.root)

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.npy"


def whole_records(file: Path) -> dict[str, Any]:
    """What a journal holds; a last line that was not finished is cut off."""
    if not file.exists():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return {entry["name"]: entry["record"] for entry in map(json.loads, whole.splitlines())}
