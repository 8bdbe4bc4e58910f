"""Images and their labels, wherever a data set keeps these, as a data store."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from entpruner.data.archives import Entry
from entpruner.data.filling import Picture, batches_of, write_pictures
from entpruner.data.writing import Contents
from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.params.origins import Origin
from entpruner.system.files import sha256_of

Section = TypeVar("Section", bound=Frozen)
Labelled = Sequence[tuple[PurePosixPath, int]]  # the images of a split, with the label of each


def vouched(section: Section) -> Section:
    """A data set's settings with the checksum of each of its files, None for a folder.

    Raises UserError if a file is missing or its checksum is not the expected one.
    """
    if not isinstance(section, Origin):
        files = {key: vouched(value) for key, value in section if isinstance(value, Origin)}
        return section.model_copy(update=files)
    path = Path(section.file)
    if not (path.is_file() or path.is_dir()):  # a pipe is neither, and never ends
        raise UserError(f"{path}: no such file or folder; put the data there or correct path")
    return section.model_copy(update={"sha256": checked_sha256(path, section.sha256)})


def checked_sha256(path: Path, expected: str | None = None) -> str | None:
    """Checksum of a file, None for a folder. Raises UserError if it isn't the expected one."""
    if path.is_dir():
        if expected is not None:
            raise UserError(f"{path}: a folder has no checksum; remove sha256, or give an archive")
        return None
    found = sha256_of(path)
    if expected not in (None, found):
        raise UserError(f"{path}: its sha256 is {found}, expected {expected}; get the file again or correct sha256")
    return found


def write_images(
    out: Path,
    path: Path,
    entries: Sequence[Entry],
    splits: Mapping[str, Labelled],
    class_names: Sequence[str],
    shape: tuple[int, int, int],
    source: dict[str, Any],
    threads: int,
    checksum: str | None = None,
) -> None:
    """Write a store of images of ``shape`` (C, S, S); its rows are in the order of ``splits``.

    ``entries`` are all files of the folder or archive ``path``, among them the images. Raises UserError, and leaves no
    store, if an image is there twice, missing, or can't be read, or if a class has no images in a split.
    """
    rows = [(image, label) for labelled in splits.values() for image, label in labelled]
    require_whole(path, [image for image, _ in rows], entries)
    require_every_class(path, splits, class_names)
    place = {image: (row, label) for row, (image, label) in enumerate(rows)}
    pictures = [Picture(*place[entry.path], entry) for entry in entries if entry.read and entry.path in place]
    counts = {name: len(labelled) for name, labelled in splits.items()}
    write_pictures(out, batches_of(lambda: pictures), Contents(counts, shape, class_names, source), threads, checksum)


def require_whole(path: Path, images: Iterable[PurePosixPath], entries: Sequence[Entry]) -> None:
    """Raises UserError unless every image is there once, and listed once."""
    listed = Counter(images)
    there = Counter(entry.path for entry in entries if entry.read is not None)
    for image, times in listed.items():
        if times > 1 or there[image] > 1:
            raise UserError(f"{path}: {str(image)!r} is {'listed' if times > 1 else 'there'} twice; remove one")
        if not there[image]:
            raise UserError(f"{path}: {str(image)!r} is listed, but not there; get the data again")


def require_every_class(path: Path, splits: Mapping[str, Labelled], class_names: Sequence[str]) -> None:
    """Raises UserError unless every class has images in every split."""
    for split, labelled in splits.items():
        found = {label for _, label in labelled}
        for label, name in enumerate(class_names):
            if label not in found:
                raise UserError(
                    f"{path}: class {name!r} has no images in {split}; every class needs some in each split"
                )
