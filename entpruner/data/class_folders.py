"""One's own images as a data store: a folder or archive of ``<class>/*.jpg|png``, or of images of one class."""

from pathlib import Path

import numpy as np

from entpruner.data.archives import Entry, opened
from entpruner.data.filling import Listing, write_pictures
from entpruner.data.images import SUFFIXES
from entpruner.data.labelled import checked_sha256
from entpruner.errors import UserError


def prepare_class_folders(path: Path, out: Path, size: int, channels: int, threads: int = 1) -> None:
    """A store of square images (channels, size, size), grey or RGB, all in the split ``train``.

    Classes are the sorted names of the folders that hold images; images that lie in no folder are one class, named
    ``images``. Raises UserError, and leaves no store, if there are no images, if some lie in folders and some don't, or
    if one can't be read.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give a folder of <class>/*.jpg or .png")
    with opened(path) as entries:
        images = sorted(filter(is_image, entries), key=lambda entry: entry.path)
        folders = sorted({entry.path.parent.name for entry in images})
        if not images:
            deeper = next((entry.path for entry in entries if entry.path.suffix.lower() in SUFFIXES), None)
            where = f", only deeper, as {str(deeper)!r}" if deeper else ""
            raise UserError(
                f"{path}: no .jpg or .png in it or its folders{where}; give a folder of <class>/*.jpg or .png"
            )
        if "" in folders and len(folders) > 1:
            raise UserError(f"{path}: images in folders and beside them; put all in folders, one a class, or none")
        row_of = {entry.path: row for row, entry in enumerate(images)}
        pictures = Listing(path, lambda: [(row_of[entry.path], entry) for entry in filter(is_image, entries)])
        labels = np.array([folders.index(entry.path.parent.name) for entry in images])
        write_pictures(
            out,
            [pictures],
            labels,
            counts={"train": len(images)},
            shape=(channels, size, size),
            class_names=[folder or "images" for folder in folders],
            source={"source": "class_folders", "path": str(path)},
            threads=threads,
            checksum=checked_sha256(path, expected=None),
        )


def is_image(entry: Entry) -> bool:
    """A file in the top folder or in a class folder, and none of the hidden litter of editors and systems."""
    parts = entry.path.parts
    hidden = any(part.startswith(".") for part in parts)
    return entry.read is not None and len(parts) <= 2 and not hidden and entry.path.suffix.lower() in SUFFIXES
