"""Checksums of files that commands write one by one, into folders where other commands write too.

``whole_folder`` writes down the checksums of a folder that one command makes. Here each file's checksum is added to
those of its folder, so that whoever reads the file can ask whether it is ``intact``, too.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from entpruner.layout import CHECKSUMS
from entpruner.system.files import ONE_BY_ONE, checksum_of, checksums_in, write_json


class Written(NamedTuple):
    """Where a command writes."""

    folder: Path
    names: str
    """A pattern of the files' names."""


@contextmanager
def noted(written: Iterable[Written]) -> Iterator[None]:
    """Write down the checksums of the files that the block makes there; not in folders that it makes as a whole."""
    places = [*written]
    before = found(places)
    yield
    for file, made in found(places).items():
        if before.get(file) != made:
            note(file)


def found(places: Iterable[Written]) -> dict[Path, tuple[int, int]]:
    """What tells each file from another one that replaces it."""
    files = {file: file.stat() for folder, names in places for file in folder.glob(names) if file.is_file()}
    return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in files.items()}


def note(file: Path) -> None:
    """Add the checksum of a file to those of its folder, to which others may add theirs at the same time."""
    with alone_in(file.parent):
        known = checksums_in(file.parent) or {CHECKSUMS: ONE_BY_ONE}
        if known.get(CHECKSUMS) == ONE_BY_ONE:
            write_json(file.parent / CHECKSUMS, known | {file.name: checksum_of(file)})


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within the block, no other process is in one of the same folder; unless its file system cannot lock."""
    here = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(here, fcntl.LOCK_EX)
        yield
    finally:
        os.close(here)
