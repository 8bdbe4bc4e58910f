"""Caltech-UCSD Birds-200-2011, as it is distributed."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from entpruner.data.archives import Entry
from entpruner.data.labelled import Labelled
from entpruner.data.lists import content_of, numbered
from entpruner.errors import UserError
from entpruner.params.datasets import Cub

CLASSES, IMAGES = "classes.txt", "images.txt"
LABELS, SPLIT = "image_class_labels.txt", "train_test_split.txt"


def cub_splits(dataset: Cub, entries: Sequence[Entry]) -> tuple[dict[str, Labelled], list[str]]:
    """The official splits ``train`` and ``test``, each in the order of images.txt, and the names of the classes.

    Labels are the numbers in image_class_labels.txt less one. Raises UserError if a list is missing or damaged,
    contradicts another or knows an unknown class.
    """
    path = dataset.file
    names = {name: f"{path}: {name}" for name in (CLASSES, IMAGES, LABELS, SPLIT)}
    lists = {name: numbered(content_of(entries, name, path), where) for name, where in names.items()}
    classes, images = lists[CLASSES], lists[IMAGES]
    if sorted(classes) != list(range(1, len(classes) + 1)):
        raise UserError(f"{names[CLASSES]}: its classes are not numbered 1, 2, ...; get the file again")
    for name in (LABELS, SPLIT):
        if other := sorted(lists[name].keys() ^ images.keys()):
            lacking = name if other[0] in images else IMAGES
            raise UserError(f"{names[name]}: it disagrees with {IMAGES}: image {other[0]} is not in {lacking}")
    splits: dict[str, list[tuple[PurePosixPath, int]]] = {"train": [], "test": []}
    for number, image in images.items():
        label, in_train = lists[LABELS][number], lists[SPLIT][number]
        if not label.isdecimal() or int(label) not in classes:
            raise UserError(f"{names[LABELS]}: image {number} has label {label}, {CLASSES} has 1 to {len(classes)}")
        if in_train not in ("0", "1"):
            raise UserError(f"{names[SPLIT]}: image {number} has {in_train}, not 1 (train) or 0 (test)")
        splits["train" if in_train == "1" else "test"].append((PurePosixPath("images", image), int(label) - 1))
    return dict(splits), [classes[number] for number in sorted(classes)]
