"""A folder or archive of ``<split>/<class>/*.jpg|png``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from entpruner.data.archives import Entry
from entpruner.data.images import is_picture
from entpruner.data.labelled import Labelled
from entpruner.errors import UserError
from entpruner.params.datasets import ArtBench, ImageFolder


def folder_splits(dataset: ImageFolder | ArtBench, entries: Sequence[Entry]) -> tuple[dict[str, Labelled], list[str]]:
    """The splits ``train`` and ``test``, each sorted by class and file name, and the names of the classes.

    So the same images give the same rows, be they in a folder, a .zip or a .tar. Raises UserError as ``select``.
    """
    images, class_names = select(entries, dataset)
    label_of = {name: label for label, name in enumerate(class_names)}
    splits: dict[str, Labelled] = {
        name: [(image, label_of[image.parts[1]]) for image in images if image.parts[0] == folder]
        for name, folder in (("train", dataset.train), ("test", dataset.test))
    }
    return splits, class_names


def select(entries: Sequence[Entry], dataset: ImageFolder | ArtBench) -> tuple[list[PurePosixPath], list[str]]:
    """The image files, first those of train, and the sorted names of the class folders.

    Raises UserError if a split is missing or lacks images of a class.
    """
    splits = (dataset.train, dataset.test)
    # hidden files are left there by editors and systems
    visible = [entry for entry in entries if not any(part.startswith(".") for part in entry.path.parts)]
    folders = {entry.path if entry.read is None else entry.path.parent for entry in visible}
    found = sorted({folder.parts[0] for folder in folders if folder.parts})
    class_names = sorted({folder.parts[1] for folder in folders if folder.parts[1:] and folder.parts[0] in splits})
    paths = {entry.path for entry in filter(is_picture, visible) if len(entry.path.parts) == 3}
    images = sorted(
        (path for path in paths if path.parts[0] in splits), key=lambda path: (splits.index(path.parts[0]), path)
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
