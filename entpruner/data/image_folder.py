"""A folder or archive of ``<split>/<class>/*.jpg|png`` as a data store. Nothing is ever extracted to the disk."""

import io
import lzma
import stat
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from entpruner.artefacts import sha256_of
from entpruner.data.store import new_store
from entpruner.errors import UserError
from entpruner.params import ImageFolder

SUFFIXES = {".jpg", ".jpeg", ".png"}
# what zipfile, tarfile and the decompressors raise on damaged bytes; RuntimeError is an encrypted or unsupported member
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)


class Entry(NamedTuple):
    """A file of the source, or a folder: then ``read`` is None."""

    path: PurePosixPath
    read: Callable[[], bytes] | None


def prepare_image_folder(dataset: ImageFolder, out: Path) -> None:
    """A store of square RGB images with the splits ``train`` and ``test``, each sorted by class and file name.

    Classes are the sorted names of the class folders, the same in both splits. The same images give the same pixels
    and labels, be they in a folder, a .zip or a .tar. Raises UserError, and leaves no store, if the source is missing,
    damaged or of another checksum, if a member would climb out of its archive, if an image can't be read, or if a
    split is missing or lacks a class.
    """
    path = Path(dataset.file)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; put the data there or correct path")
    source = {**dataset.model_dump(mode="json"), "sha256": checked_sha256(path, dataset.sha256)}
    with opened(path) as entries:
        images, class_names = select(entries, dataset)
        row_of = {image: row for row, image in enumerate(images)}
        label_of = {name: label for label, name in enumerate(class_names)}
        in_train = sum(image.parts[0] == dataset.train for image in images)
        counts = {"train": in_train, "test": len(images) - in_train}
        shape = (3, dataset.image_size, dataset.image_size)
        with new_store(out, counts, shape, class_names, source) as (pixels, labels):
            for entry in entries:  # in the source's own order: an archive is read from its beginning to its end
                if entry.read is not None and (row := row_of.get(entry.path)) is not None:
                    image = decode(entry.read, f"{path}: {str(entry.path)!r}")
                    pixels[row] = np.asarray(centre_crop(image, dataset.image_size)).transpose(2, 0, 1)
                    labels[row] = label_of[entry.path.parts[1]]


def checked_sha256(path: Path, expected: str | None) -> str | None:
    """Checksum of an archive, None for a folder. Raises UserError if it isn't the expected one."""
    if path.is_dir():
        if expected is not None:
            raise UserError(f"{path}: a folder has no checksum; remove sha256, or give an archive")
        return None
    found = sha256_of(path)
    if expected not in (None, found):
        raise UserError(f"{path}: its sha256 is {found}, expected {expected}; get the file again or correct sha256")
    return found


def select(entries: list[Entry], dataset: ImageFolder) -> tuple[list[PurePosixPath], list[str]]:
    """The image files in the store's order, first those of train, and the class names."""
    splits = (dataset.train, dataset.test)
    # hidden files are the litter of editors and systems
    visible = [entry for entry in entries if not any(part.startswith(".") for part in entry.path.parts)]
    folders = {entry.path if entry.read is None else entry.path.parent for entry in visible}
    found = sorted({folder.parts[0] for folder in folders if folder.parts})
    class_names = sorted({folder.parts[1] for folder in folders if folder.parts[1:] and folder.parts[0] in splits})
    images = sorted(
        {
            entry.path
            for entry in visible
            if entry.read is not None
            and len(entry.path.parts) == 3
            and entry.path.parts[0] in splits
            and entry.path.suffix.lower() in SUFFIXES
        },
        key=lambda image: (splits.index(image.parts[0]), image),
    )
    counts = Counter(image.parts[:2] for image in images)
    for split in splits:
        if split not in found:
            holds = ", ".join(map(repr, found[:8])) or "no folders"
            raise UserError(f"{dataset.file}: no split {split!r}, it holds {holds}; set train and test to its folders")
        empty = [name for name in class_names if not counts[split, name]]
        if empty or not class_names:
            what = f"class {empty[0]!r} has no" if empty else "there are no class folders with"
            raise UserError(
                f"{dataset.file}: {what} .jpg or .png images in {split!r}; every class needs some in both splits"
            )
    return images, class_names


# ------------------------------------------------------------------------------------------- folders and archives


@contextmanager
def opened(path: Path) -> Iterator[list[Entry]]:
    """All files and folders of a folder, .zip or .tar, in its own order; files can be read while the block runs."""
    if path.is_dir():
        yield folder_entries(path)
        return
    listers = {".zip": zip_entries, ".tar": tar_entries}
    if path.suffix.lower() not in listers:
        raise UserError(f"{path}: neither a folder nor a .zip or .tar; pack the images as one of these")
    with path.open("rb") as file:
        try:
            entries = listers[path.suffix.lower()](path, file)
        except DAMAGE as error:
            raise UserError(f"{path}: truncated or damaged archive ({error}); get the file again") from error
        yield entries


def folder_entries(path: Path) -> list[Entry]:
    files = sorted([*path.glob("*"), *path.glob("*/*"), *path.glob("*/*/*")])
    return [Entry(PurePosixPath(file.relative_to(path)), None if file.is_dir() else file.read_bytes) for file in files]


def zip_entries(path: Path, file: BinaryIO) -> list[Entry]:
    archive = zipfile.ZipFile(file)
    entries = []
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        inside = safe_path(path, member.filename, is_link)
        entries.append(Entry(inside, None if member.is_dir() else partial(archive.read, member)))
    return entries


def tar_entries(path: Path, file: BinaryIO) -> list[Entry]:
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  (the file is the caller's to close)

    def read(member: tarfile.TarInfo) -> bytes:
        content = archive.extractfile(member)
        assert content is not None  # safe_path has refused all that is neither file nor folder
        return content.read()

    entries = []
    for member in archive:
        inside = safe_path(path, member.name, is_link=not (member.isfile() or member.isdir()))
        entries.append(Entry(inside, None if member.isdir() else partial(read, member)))
    # tarfile takes a cut between two members, or a damaged header, for the end; a whole archive ends in a zero block
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it stops before its end-of-archive block")
    return entries


def safe_path(archive: Path, member: str, is_link: bool) -> PurePosixPath:
    """A member's path. Raises UserError if it leads out of the archive, by its name or by being a link or device."""
    as_any_system = PureWindowsPath(member)  # knows \\ and drives besides /
    if as_any_system.anchor or ".." in as_any_system.parts:
        raise UserError(f"{archive}: {member!r}: this path climbs out of the archive; don't trust it, get another one")
    if is_link:
        raise UserError(f"{archive}: {member!r}: a link or device, not a file; pack the images themselves")
    return PurePosixPath(member)


# --------------------------------------------------------------------------------------------------------- images


def decode(read: Callable[[], bytes], where: str) -> Image.Image:
    """An RGB image from the bytes of a JPEG or PNG. Raises UserError if they can't be read or aren't a whole one."""
    try:
        content = io.BytesIO(read())
    except DAMAGE as error:
        raise UserError(f"{where}: can't be read ({error}); get the file again") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(content, formats=("JPEG", "PNG"))
            if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip at 255 instead of scaling
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{where}: too large to be opened safely ({error}); shrink or remove it") from error
    except Exception as error:  # PIL's plugins raise whatever they stumble over in broken bytes
        raise UserError(f"{where}: not a whole JPEG or PNG image; replace or remove it") from error


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of an image at (size, size), as in ADM (Dhariwal & Nichol 2021) and hence DiT.

    Halved with a box filter while the short side stays at least ``size``, so that the bicubic filter, which then
    brings the short side to ``size``, never skips pixels; then the middle is cut out.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
