"""A folder or archive of ``<class>/*.jpg|png``: of a study, or one's own images, which may be of one class."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from entpruner.data.archives import Entry, opened
from entpruner.data.images import SUFFIXES, is_picture
from entpruner.data.labelled import Labelled, checked_sha256, write_images
from entpruner.errors import UserError
from entpruner.params.datasets import ClassFolders


def prepare_class_folders(path: Path, out: Path, size: int, channels: int, threads: int = 1) -> None:
    """A store of square images (channels, size, size), grey or RGB, all in the split ``train``.

    Classes are the sorted names of the folders that hold images; images that lie in no folder are one class, named
    ``images``. Raises UserError, and leaves no store, if there are no images, if some lie in folders and some don't, or
    if one is there twice or can't be read.
    """
    if not (path.is_file() or path.is_dir()):  # a pipe is neither, and never ends
        raise UserError(f"{path}: no such file or folder; give a folder of <class>/*.jpg or .png")
    with opened(path) as entries:
        images = sorted({entry.path for entry in filter(is_picture, entries) if len(entry.path.parts) <= 2})
        folders = sorted({image.parent.name for image in images})
        if not images:
            deeper = next((entry.path for entry in entries if entry.path.suffix.lower() in SUFFIXES), None)
            where = f", only deeper, as {str(deeper)!r}" if deeper else ""
            raise UserError(
                f"{path}: no .jpg or .png in it or its folders{where}; give a folder of <class>/*.jpg or .png"
            )
        if "" in folders and len(folders) > 1:
            raise UserError(f"{path}: images in folders and beside them; put all in folders, one a class, or none")
        splits = {"train": [(image, folders.index(image.parent.name)) for image in images]}
        class_names = [folder or "images" for folder in folders]
        source, checksum = {"source": "class_folders", "path": str(path)}, checked_sha256(path)
        write_images(out, path, entries, splits, class_names, (channels, size, size), source, threads, checksum)


def held_out_splits(dataset: ClassFolders, entries: Sequence[Entry]) -> tuple[dict[str, Labelled], list[str]]:
    """The splits ``train`` and ``test``, each sorted by class and file name, and the sorted names of the classes.

    The images of a class whose names have the lowest digests are held out. Raises UserError if there are no images in
    class folders, or if a class has only one.
    """
    of_class: dict[str, list[PurePosixPath]] = defaultdict(list)
    for entry in filter(is_picture, entries):
        if len(entry.path.parts) == 2:
            of_class[entry.path.parts[0]].append(entry.path)
    if not of_class:
        raise UserError(f"{dataset.file}: no .jpg or .png in its folders; sort images as <class>/*.jpg or .png")
    train: list[tuple[PurePosixPath, int]] = []
    test: list[tuple[PurePosixPath, int]] = []
    for label, (name, images) in enumerate(sorted(of_class.items())):
        if len(images) == 1:
            raise UserError(f"{dataset.file}: class {name!r} has one image; allowed: two or more, as one is held out")
        number = min(max(1, round(dataset.test_fraction * len(images))), len(images) - 1)
        held = set(sorted(images, key=lambda image: hashlib.sha256(str(image).encode()).digest())[:number])
        for image in sorted(images):
            (test if image in held else train).append((image, label))
    return {"train": train, "test": test}, sorted(of_class)
