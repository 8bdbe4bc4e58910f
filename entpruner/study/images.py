"""How many images and classes a data set has, before it is prepared."""

from pathlib import Path
from typing import NamedTuple

from entpruner.params.datasets import Dataset, Digits, Flowers, ImageFolder

DIGITS_A_CLASS = 180  # scikit-learn's 1,797 digits are 174 to 183 a class


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
    return ASSUMED if isinstance(dataset, ImageFolder) else images_of(dataset)


def images_of(dataset: Dataset) -> Images:
    """Counted from the names in a folder or archive, no image being read; a published data set's are known.

    Raises UserError as preparing it would, if the source is damaged or lacks a split.
    """
    if isinstance(dataset, Digits):
        whole = DIGITS_A_CLASS * len(dataset.classes)
        test = round(whole * dataset.test_fraction)
        return Images(whole - test, test, len(dataset.classes))
    if isinstance(dataset, Flowers):
        train, test = (sum(dataset.published[name] for name in names) for names in (dataset.train, dataset.test))
        return Images(train, test, dataset.classes)
    if not isinstance(dataset, ImageFolder):
        return Images(*dataset.published)
    return in_folder(dataset)


def in_folder(dataset: ImageFolder) -> Images:
    if not Path(dataset.file).exists():
        return Images(0, 0, 0, dataset.file)
    from entpruner.data.archives import opened  # seconds of imports, which most studies do without
    from entpruner.data.image_folder import select

    with opened(Path(dataset.file)) as entries:
        names, classes = select(entries, dataset)
    train = sum(name.parts[0] == dataset.train for name in names)
    return Images(train, len(names) - train, len(classes))
