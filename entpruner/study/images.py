"""How many images and classes a data set has, before it is prepared."""

from pathlib import Path
from typing import NamedTuple

from entpruner.params.datasets import ClassFolders, Dataset, ImageFolder


class Images(NamedTuple):
    """The sizes of a data set."""

    train: int
    test: int
    classes: int
    missing: str | None = None
    """The file or folder that isn't there, so that the numbers above are not known."""

    @property
    def total(self) -> int:
        return self.train + self.test


ASSUMED = Images(train=50_000, test=10_000, classes=1000)
"""The sizes that are assumed of a folder or archive that nobody has counted."""


def known_images(dataset: Dataset) -> Images:
    """The sizes of a data set as far as they are known without looking at a disk."""
    return ASSUMED if isinstance(dataset, ImageFolder | ClassFolders) else Images(*dataset.published)


def images_of(dataset: Dataset) -> Images:
    """The sizes of a data set. Those of a folder or archive are counted from the names in it, and no image is read.

    Raises UserError as the preparation of the data would, if the source is damaged or lacks a split.
    """
    if not isinstance(dataset, ImageFolder | ClassFolders):
        return known_images(dataset)
    if not Path(dataset.file).exists():
        return Images(0, 0, 0, dataset.file)
    from entpruner.data.archives import opened  # seconds of imports, which most studies do without
    from entpruner.data.class_folders import held_out_splits
    from entpruner.data.image_folder import folder_splits

    with opened(Path(dataset.file)) as entries:
        if isinstance(dataset, ImageFolder):
            splits, classes = folder_splits(dataset, entries)
        else:
            splits, classes = held_out_splits(dataset, entries)
    return Images(len(splits["train"]), len(splits["test"]), len(classes))
