"""Files and folders that are written as a whole or not at all, JSON files, and checksums."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entpruner.errors import UserError

LARGEST_JSON = 2**26  # bytes; the largest files, of training curves and of the audit, have some megabytes
UMASK = os.umask(0o022)  # the only way to read the umask is to set it
os.umask(UMASK)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into. If the block ends well, it becomes ``target`` and replaces an earlier one.

    Until then it is called ``<target>.partial``. After an error nothing is left of it.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with renamed(partial, target):
        yield partial


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path of a file to write, ``<target>.partial``, which becomes ``target`` in the same way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with renamed(target.with_name(target.name + ".partial"), target) as partial:
        yield partial


@contextmanager
def renamed(partial: Path, target: Path) -> Iterator[Path]:
    """Rename a file or folder to ``target`` if the block ends well, and delete it after an error."""
    try:
        yield partial
        for path in (*partial.rglob("*"), partial):
            share(path)
            sync(path)
    except BaseException:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        raise
    if partial.is_dir() and target.exists():
        shutil.rmtree(target)
    partial.replace(target)
    sync(target.parent)


def share(path: Path) -> None:
    """Give a file the permissions of any new file, because safetensors writes files that only their owner can read."""
    if path.is_file():
        path.chmod(0o666 & ~UMASK)


def sync(path: Path) -> None:
    """Force a file or folder to the disk, so that a rename is never on the disk before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: Path, size: int, what: str) -> None:
    """Raise UserError if the disk of a folder has less than ``size`` bytes free. ``what`` is the thing to be stored."""
    free = shutil.disk_usage(folder).free
    if size > free:
        needs = f"needs {size / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free"
        raise UserError(f"{what}: {needs}; make room, or run in a folder on another disk")


def write_json(path: Path, content: Any) -> None:
    """Write sorted, indented JSON with a final newline. Raises ValueError for NaN and infinity."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError if it is not one, or is larger or deeper than any file of ours."""
    with path.open("rb") as file:
        content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("its lists and mappings lie too deep within each other") from None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
