"""An .npy file while its rows are written, one after the other or by several processes side by side."""

import errno
import io
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from entpruner.errors import UserError

Buffer = bytes | memoryview


class RowFile:
    """An array (N, ...) in a file, whose rows are written plainly and forced to the disk.

    Through a memory map a full disk would end the process by a signal.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        header = io.BytesIO()
        described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        self.path, self.header = path, header.getvalue()
        self.row_bytes = np.dtype(dtype).itemsize * math.prod(shape[1:])
        self.size = len(self.header) + shape[0] * self.row_bytes

    def create(self, what: str, advice: str = "") -> None:
        """Make the file at its full size, or leave it so; raises UserError if the disk has no room for the rest.

        ``what`` is what messages call its content, ``advice`` what else would help.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            missing = self.size - os.fstat(descriptor).st_blocks * 512  # what is not written yet takes no room yet
            free = shutil.disk_usage(self.path.parent).free
            if missing > free:
                raise UserError(
                    f"{self.path.parent}: {what} need {missing / 2**30:.1f} GiB more, {free / 2**30:.1f} GiB are "
                    f"free; make room{advice}, and run the same again"
                )
            os.pwrite(descriptor, self.header, 0)
            os.ftruncate(descriptor, self.size)
        finally:
            os.close(descriptor)

    def write(self, parts: Iterable[tuple[int, Buffer]]) -> None:
        """Write what each row, or several from it on, are to hold; all of it is on the disk when this returns."""
        with self.path.open("r+b") as file:
            for row, content in parts:
                file.seek(len(self.header) + row * self.row_bytes)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        """Each of these rows; nothing, if the file is not there."""
        if self.path.exists():
            with self.path.open("rb") as file:
                for row in rows:
                    file.seek(len(self.header) + row * self.row_bytes)
                    yield file.read(self.row_bytes)

    def move(self, target: Path) -> None:
        """Put the file at ``target``, where it is whole; no kill loses it on a file system that has links."""
        try:
            target.hardlink_to(self.path)
        except OSError:
            self.path.rename(target)


@contextmanager
def kept_when_full(folder: Path) -> Iterator[None]:
    """A full disk as a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder}: the disk is full ({error}); all that was done is kept: make room and run the same again"
        ) from error
