"""Files and folders that are written as a whole or not at all, JSON files, and checksums."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import CHECKSUMS

LARGE, SAMPLES, PIECE = 2**30, 256, 2**18  # bytes; hashing a gigabyte takes about a second, a store may have hundreds
LARGEST_JSON = 2**26  # bytes; the largest files, of training curves and of the audit, have some megabytes
DISK_FULL = "the disk is full"
ONE_BY_ONE = "each of these files is written by itself"
"""What a folder's checksums say of themselves, under their own name, where no command made the folder as a whole."""
UMASK = os.umask(0o022)  # the only way to read the umask is to set it
os.umask(UMASK)


@contextmanager
def whole_folder(target: Path, with_checksums: bool = True) -> Iterator[Path]:
    """A folder to write into. If the block ends well, it becomes ``target`` and replaces an earlier one.

    Until then it is called ``<target>.partial``. After an error nothing is left of it. Whoever reads a file of the
    folder later can ask whether it is ``intact``.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with renamed(partial, target):
        yield partial
        if with_checksums:
            checksums = {file.name: checksum_of(file) for file in sorted(partial.iterdir()) if file.is_file()}
            (partial / CHECKSUMS).write_text(json.dumps(checksums, indent=1) + "\n")


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
        with kept_when_full(target.parent):
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


@contextmanager
def kept_when_full(folder: Path) -> Iterator[None]:
    """Makes a UserError of the error that a full disk raises in the block."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # so safetensors, which is written in Rust, says it
        code = int(number[1]) if number else getattr(error, "errno", None)
        if code not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder}: {DISK_FULL} ({error}); all that was done is kept: make room and run the same again"
        ) from error


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
    """The content of a JSON file.

    Raises ValueError if it is not one, or is larger or deeper than any file of ours, and UserError if it is not
    ``intact``.
    """
    with intact(path).open("rb") as file:
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


# ---------------------------------------------------------------------------------------------------------- checksums


def intact(file: Path) -> Path:
    """The same path, if the file is as ``whole_folder`` wrote it, or if nobody wrote down what it was.

    Raises UserError for a file with a flipped byte or of another run. Files that are not there are the reader's affair.
    """
    known = checksums_in(file.parent)
    expected = known.get(file.name)
    if expected and file.exists() and checksum_of(file) != expected:
        damaged = file if known.get(CHECKSUMS) == ONE_BY_ONE else file.parent
        raise UserError(
            f"{file}: it has changed since it was written, says {CHECKSUMS} beside it; delete {damaged} and run the "
            "same again"
        )
    return file


def checksums_in(folder: Path) -> dict[str, str]:
    """What ``whole_folder`` wrote down about the files of a folder, by their names."""
    try:
        return dict(json.loads((folder / CHECKSUMS).read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / CHECKSUMS}: damaged ({error}); delete the files in {folder} and run the same again"
        ) from None


def checksum_of(file: Path) -> str:
    """SHA-256 of a file; of one larger than ``LARGE``, of its size and of ``SAMPLES`` pieces from all over it."""
    size = file.stat().st_size
    if size <= LARGE:
        return sha256_of(file)
    sampled = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        for sample in range(SAMPLES):
            content.seek(sample * (size - PIECE) // (SAMPLES - 1))
            sampled.update(content.read(PIECE))
    return f"{SAMPLES} pieces of {PIECE} bytes: {sampled.hexdigest()}"
