"""Artefacts on disk: written whole or not at all, and with a record of how they were made."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entpruner.errors import UserError

UMASK = os.umask(0o022)  # it can only be read by setting it
os.umask(UMASK)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``target`` only if the block ends well; it replaces an earlier one.

    What is written lies in ``<target>.partial`` until then; after an error nothing is left of it.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in (*partial.rglob("*"), partial):
            share(path)
            sync(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    sync(target.parent)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """The same for one file: a path to write to that becomes ``target`` only if the block ends well."""
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        share(partial)
        sync(partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)
    sync(target.parent)


def share(path: Path) -> None:
    """Give a file the rights that new files have here: safetensors writes its own for nobody else to read."""
    if path.is_file():
        path.chmod(0o666 & ~UMASK)


def sync(path: Path) -> None:
    """Force a file or folder to the disk, so that a rename never outruns the bytes it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: Path, size: int, what: str) -> None:
    """Raises UserError if the disk of a folder has less than ``size`` bytes free, which ``what`` needs."""
    free = shutil.disk_usage(folder).free
    if size > free:
        needs = f"needs {size / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free"
        raise UserError(f"{what}: {needs}; make room, or run in a folder on another disk")


def write_json(path: Path, content: Any) -> None:
    """Sorted, indented JSON with a final newline; NaN and infinity are errors."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
