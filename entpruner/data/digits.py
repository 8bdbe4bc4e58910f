"""scikit-learn's digits as a data store."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from entpruner.data.writing import write_store
from entpruner.errors import UserError
from entpruner.params.datasets import Digits


def prepare_digits(dataset: Digits, out: Path) -> None:
    """A store of 8x8 grey digits with the splits ``train`` and ``test``, in scikit-learn's order.

    Every class gives the same share of its images to ``test``. They are evenly spaced over the class, because the set
    is not shuffled and neighbours are by one writer. Raises UserError if a class is left without test images.
    """
    pixels, digit = load_digits(return_X_y=True)  # (1797, 64) float, 0..16
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = np.full(len(digit), -1)
    is_test = np.zeros(len(digit), dtype=bool)
    for label, name in enumerate(dataset.classes):
        rows = np.flatnonzero(digit == name)
        # the running total n * test_fraction passes a whole number once for every test image
        held_out = np.diff(np.floor(np.arange(len(rows) + 1) * dataset.test_fraction)) > 0
        if not held_out.any():
            raise UserError(
                f"digits: test_fraction {dataset.test_fraction} leaves class {name} no test image; raise it"
            )
        labels[rows] = label
        is_test[rows] = held_out
    kept = labels >= 0
    write_store(
        out,
        {name: (images[rows], labels[rows]) for name, rows in (("train", kept & ~is_test), ("test", kept & is_test))},
        class_names=[str(name) for name in dataset.classes],
        source=dataset.model_dump(mode="json"),
    )
