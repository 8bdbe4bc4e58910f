"""Records of a long command, kept as they are finished: a killed command goes on after the last whole one."""

import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def resumable(folder: Path, fingerprint: str, jobs: Iterable[tuple[str, Callable[[], Any]]]) -> dict[str, Any]:
    """Do the jobs (name, what to do) in turn and return their JSON records by name; those already done are read back.

    Records go to ``folder`` under the ``fingerprint`` of all that they depend on: those of other settings don't count.
    The caller deletes the folder once its output is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{fingerprint[:16]}.jsonl"
    done = whole_lines(file)
    if done:
        log.info("going on after %d records in %s", len(done), file)
    with file.open("a") as stream:
        for name, job in jobs:
            if name not in done:
                done[name] = json.loads(json.dumps(job(), allow_nan=False))
                stream.write(json.dumps({"name": name, "record": done[name]}) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
    return done


def whole_lines(file: Path) -> dict[str, Any]:
    """The records of a journal; a last line that was not finished is cut off."""
    if not file.exists():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return {entry["name"]: entry["record"] for entry in map(json.loads, whole.splitlines())}
