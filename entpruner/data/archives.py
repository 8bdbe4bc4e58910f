"""Files of a folder, .zip or .tar, plain or gzipped, read where they lie: nothing is ever extracted to the disk."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from entpruner.errors import UserError

# what zipfile, tarfile and the decompressors raise on damaged bytes; RuntimeError: a member is encrypted, or packed in
# a way that is unknown; MemoryError: a decompressor was asked for gigabytes
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError,
    MemoryError,
)  # fmt: skip
GZIP = b"\x1f\x8b"  # how a gzipped file begins
LARGEST, LARGEST_TAR = 2**28, 2**31  # bytes of a file in a source, and of a tar in it: ImageNet's is a tar of tars


class Entry(NamedTuple):
    """A file or folder in a source of data, which is itself a folder or an archive."""

    where: str
    """What messages call the source."""
    path: PurePosixPath
    """The path within the source."""
    read: Callable[[], bytes] | None
    """Gives the bytes of a file, or raises an error of ``DAMAGE``; None for a folder."""
    version: Callable[[], tuple[int, int] | None] = lambda: None
    """Size and time of change of a file that lies in a folder. A member of an archive is as old as the archive."""

    @property
    def name(self) -> str:
        """What messages call the file."""
        return f"{self.where}: {str(self.path)!r}"


@contextmanager
def opened(path: Path, top: str | None = None) -> Iterator[list[Entry]]:
    """All files and folders of a folder, .zip or .tar, in its own order; they can be read while the block runs.

    Archives are often packed with one folder around all: if there is a folder ``top``, only what lies in it is given,
    with paths from there. Raises UserError if an archive is damaged, of another kind, or has a member that would climb
    out of it.
    """
    if path.is_dir():
        yield folder_entries(path / top if top and (path / top).is_dir() else path, where=str(path))
        return
    with path.open("rb") as file:
        entries = archive_entries(path, file)
        below = [e._replace(path=PurePosixPath(*e.path.parts[1:])) for e in entries if e.path.parts[:1] == (top,)]
        yield below or entries


def folder_entries(folder: Path, where: str) -> list[Entry]:
    """What lies in a folder, down to three levels and through links, because data often lie on another disk."""
    files = sorted([*folder.glob("*"), *folder.glob("*/*"), *folder.glob("*/*/*")])
    paths = [PurePosixPath(file.relative_to(folder)) for file in files]
    return [
        Entry(where, path, None if file.is_dir() else partial(read_file, file), partial(version, file))
        for path, file in zip(paths, files, strict=True)
    ]


def read_file(file: Path) -> bytes:
    """The bytes of a file. Raises ValueError for a device or pipe, which may never end, and for a file that is huge."""
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file, but a device or pipe")
    if found.st_size > largest(file.name):
        raise ValueError(f"it has {found.st_size:,} bytes; allowed: at most {largest(file.name):,}")
    return file.read_bytes()


def largest(name: str) -> int:
    """Bytes that a file of this name may have in a source of data."""
    return LARGEST_TAR if name.endswith(".tar") else LARGEST


def version(file: Path) -> tuple[int, int] | None:
    """Size and time of change; None for a link to nothing, which will be an error when it is read."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def archive_entries(path: Path, file: IO[bytes], where: str | None = None) -> list[Entry]:
    """What an open archive holds. The suffix of ``path`` says its kind; messages call it ``where``, else ``path``."""
    where = where or str(path)
    listers = {".zip": zip_entries, ".tar": tar_entries, ".tgz": tar_entries, ".gz": tar_entries}
    if path.suffix.lower() not in listers:
        raise UserError(f"{where}: neither a folder nor a .zip or .tar (or .tar.gz, .tgz); pack the images so")
    try:
        return listers[path.suffix.lower()](where, file)
    except DAMAGE as error:
        raise UserError(f"{where}: truncated or damaged archive ({error}); get the file again") from error


def zip_entries(where: str, file: IO[bytes]) -> list[Entry]:
    """The members of a .zip, in the order in which their bytes lie in it."""
    archive = zipfile.ZipFile(file)
    entries = []
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        path = safe_path(where, member.filename, is_link=stat.S_ISLNK(member.external_attr >> 16))
        require_size(where, member.filename, member.file_size)
        entries.append(Entry(where, path, None if member.is_dir() else partial(archive.read, member)))
    return entries


def tar_entries(where: str, file: IO[bytes]) -> list[Entry]:
    """The members of a plain or gzipped .tar; its bytes say which, as some plain ones are called .tar.gz.

    The files of a gzipped one should be read in this order: a step back decompresses it anew from its beginning.
    """
    gzipped = file.read(len(GZIP)) == GZIP
    file.seek(0)
    archive = tarfile.open(fileobj=file, mode="r:gz" if gzipped else "r:")  # noqa: SIM115  (the file is the caller's)

    def read(member: tarfile.TarInfo) -> bytes:
        content = archive.extractfile(member)
        assert content is not None, "safe_path has refused all that is neither file nor folder"
        return content.read()

    entries = []
    for member in archive:
        path = safe_path(where, member.name, is_link=not (member.isfile() or member.isdir()))
        if member.issparse():
            raise UserError(f"{where}: {member.name!r}: a sparse file; pack the images themselves")
        require_size(where, member.name, member.size)
        entries.append(Entry(where, path, None if member.isdir() else partial(read, member)))
    # tarfile takes a cut between two members, or a damaged header, for the end; a whole archive ends in a zero block
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it stops before its end-of-archive block")
    behind = 0
    while gzipped and (zeros := archive.fileobj.read(1 << 20)):  # gzip compares its checksum when it comes to the end
        behind += len(zeros)
        if behind > LARGEST:
            raise tarfile.ReadError(f"more than {LARGEST:,} bytes behind its end-of-archive block")
    return entries


def require_size(where: str, member: str, size: int) -> None:
    """Raise UserError if a member's header says that it is larger than anything here. Nothing of it has been read."""
    if size > largest(member):
        raise UserError(
            f"{where}: {member!r}: {size:,} bytes; allowed: at most {largest(member):,}; pack the images alone"
        )


def safe_path(where: str, member: str, is_link: bool) -> PurePosixPath:
    """A member's path. Raises UserError if it leads out of the archive, by its name or by being a link or device."""
    as_any_system = PureWindowsPath(member)  # knows \\ and drives besides /
    if as_any_system.anchor or ".." in as_any_system.parts:
        raise UserError(f"{where}: {member!r}: this path climbs out of the archive; don't trust it, get another one")
    if is_link:
        raise UserError(f"{where}: {member!r}: a link or device, not a file; pack the images themselves")
    return PurePosixPath(member)
