"""Temporary folders that go with the process that made them; what a killed process left, the next one deletes."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX, HELD = "entpruner-", "held"
OUTSIDE = "ENTPRUNER_OUTSIDE"
"""An environment variable: what TMPDIR was before ``move_into``."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that other users cannot read, which is deleted when the block ends."""
    folder, held = make_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def make_folder() -> tuple[Path, int]:
    """A folder that other users cannot read, and the file descriptor that holds it while it is open.

    A killed process holds nothing. Folders that nobody holds any more are deleted here.
    """
    for left in abandoned():
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = os.open(folder / "taking", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    (folder / "taking").rename(folder / HELD)  # others see it only when it is locked
    return folder, held


def move_into(folder: Path) -> None:
    """Have the temporary files of this process, and of those that it starts or becomes, lie in a folder."""
    os.environ |= {OUTSIDE: os.environ.get("TMPDIR", ""), "TMPDIR": str(folder)}
    tempfile.tempdir = None


def move_out() -> None:
    """Have later temporary files lie where they did before ``move_into``, if this process was started after it."""
    before = os.environ.pop(OUTSIDE, None)
    if before is not None:
        del os.environ["TMPDIR"]
        os.environ |= {"TMPDIR": before} if before else {}
        tempfile.tempdir = None


def abandoned() -> list[Path]:
    """The folders of this user that no living process holds."""
    found = []
    for mark in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{HELD}"):
        with suppress(OSError), mark.open("rb+") as file:  # held, gone meanwhile, or another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mark.stat().st_uid == os.getuid():
                found.append(mark.parent)
    return found
