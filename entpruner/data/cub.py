"""Caltech-UCSD Birds-200-2011 as a data store."""

from pathlib import Path, PurePosixPath

from entpruner.data.archives import opened
from entpruner.data.labelled import vouched, write_images
from entpruner.data.lists import content_of, numbered
from entpruner.errors import UserError
from entpruner.params.datasets import Cub

CLASSES, IMAGES = "classes.txt", "images.txt"
LABELS, SPLIT = "image_class_labels.txt", "train_test_split.txt"


def prepare_cub(dataset: Cub, out: Path, threads: int) -> None:
    """A store of square RGB birds with the official splits ``train`` and ``test``, in the order of images.txt.

    Labels are the numbers in image_class_labels.txt less one. Raises UserError, and leaves no store, if the data are
    missing, damaged or of another checksum, if a list is missing, contradicts another or knows an unknown class, or if
    an image is missing, there twice, or can't be read.
    """
    dataset = vouched(dataset)
    path = Path(dataset.file)
    with opened(path, top="CUB_200_2011") as entries:
        names = {name: f"{path}: {name}" for name in (CLASSES, IMAGES, LABELS, SPLIT)}
        lists = {name: numbered(content_of(entries, name, str(path)), where) for name, where in names.items()}
        classes, images = lists[CLASSES], lists[IMAGES]
        if sorted(classes) != list(range(1, len(classes) + 1)):
            raise UserError(f"{names[CLASSES]}: its classes are not numbered 1, 2, ...; get the file again")
        splits: dict[str, list[tuple[PurePosixPath, int]]] = {"train": [], "test": []}
        for name in (LABELS, SPLIT):
            if other := sorted(lists[name].keys() ^ images.keys()):
                lacking = name if other[0] in images else IMAGES
                raise UserError(f"{names[name]}: it disagrees with {IMAGES}: image {other[0]} is not in {lacking}")
        for number, image in images.items():
            label, in_train = lists[LABELS][number], lists[SPLIT][number]
            if not label.isdecimal() or int(label) not in classes:
                raise UserError(f"{names[LABELS]}: image {number} has label {label}, {CLASSES} has 1 to {len(classes)}")
            if in_train not in ("0", "1"):
                raise UserError(f"{names[SPLIT]}: image {number} has {in_train}, not 1 (train) or 0 (test)")
            splits["train" if in_train == "1" else "test"].append((PurePosixPath("images", image), int(label) - 1))
        class_names = [classes[number] for number in sorted(classes)]
        write_images(out, path, entries, splits, class_names, dataset.image_size, dataset, threads)
