"""An .npy file whose rows are written in any order, even by several processes side by side."""

import hashlib
import io
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from entpruner.errors import UserError

Buffer = bytes | memoryview


class RowFile:
    """An array (N, ...) in a file, whose rows are written plainly and forced to the disk.

    Rows are not written through a memory map: on a full disk a signal would end the process.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        header = io.BytesIO()
        described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        self.path, self.header = path, header.getvalue()
        self.row_bytes = np.dtype(dtype).itemsize * math.prod(shape[1:])
        self.size = len(self.header) + shape[0] * self.row_bytes

    def create(self, what: str, advice: str = "") -> None:
        """Make the file at its full size, or leave it so. Raises UserError if the disk has no room for the rest.

        ``what`` is what that error calls the rows, and ``advice`` is what would help besides making room.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            missing = self.size - os.fstat(descriptor).st_blocks * 512  # rows that are not written take no room yet
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

    def write(self, parts: Iterable[tuple[int, Buffer]]) -> str:
        """Write the given bytes, each from the given row on, and return the checksum of all of them in this order.

        Everything is on the disk when this returns.
        """
        checksum = hashlib.sha256()
        with self.path.open("r+b") as file:
            for row, content in parts:
                file.seek(len(self.header) + row * self.row_bytes)
                file.write(content)
                checksum.update(content)
            file.flush()
            os.fsync(file.fileno())
        return checksum.hexdigest()

    def checksum(self, rows: Iterable[int]) -> str:
        """Checksum of the bytes of these rows, in this order; that of no bytes, if the file is not there."""
        checksum = hashlib.sha256()
        if self.path.exists():
            with self.path.open("rb") as file:
                for row in rows:
                    file.seek(len(self.header) + row * self.row_bytes)
                    checksum.update(file.read(self.row_bytes))
        return checksum.hexdigest()

    def move(self, target: Path) -> None:
        """Put the whole file at ``target``. On a file system that has links, a kill does not lose it."""
        try:
            target.hardlink_to(self.path)
        except OSError:
            self.path.rename(target)
