"""scikit-learn's digits as a data store: as they are, with captions, or moving."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from entpruner.data.writing import write_store
from entpruner.errors import UserError
from entpruner.params.datasets import CaptionedDigits, Digits, MovingDigits

Images = NDArray[np.uint8]
"""(N, 1, 8, 8)"""
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WEIGHTS, LEANS = ("thin", "bold"), ("leaning right", "upright", "leaning left")
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}
"""Pixels that a digit moves in a frame, downwards and to the right."""


def prepare_digits(dataset: Digits, out: Path) -> None:
    """A store of 8x8 grey digits with the splits ``train`` and ``test``, in scikit-learn's order.

    Every class gives the same share of its images to ``test``. They are evenly spaced over the class, because the set
    is not shuffled and neighbours are by one writer. Raises UserError if a class is left without test images.
    """
    images, labels, is_test = digits_of(dataset)
    write(dataset, out, images, labels, is_test, [str(name) for name in dataset.classes])


def prepare_captioned(dataset: CaptionedDigits, out: Path) -> None:
    """The same with captions as classes: those that an image to train on has. Images of other captions are left out."""
    images, digit, is_test = digits_of(dataset)
    numerals = [NUMERALS[name] for name in dataset.classes]
    captions = [f"a {numeral}, {weight}, {lean}" for numeral, weight, lean in product(numerals, WEIGHTS, LEANS)]
    caption = (digit * len(WEIGHTS) + part_of(ink(images), digit, len(WEIGHTS))) * len(LEANS)
    caption += part_of(slope(images), digit, len(LEANS))
    seen = np.unique(caption[~is_test])
    kept = np.isin(caption, seen)
    labels = np.searchsorted(seen, caption[kept])
    write(dataset, out, images[kept], labels, is_test[kept], [captions[number] for number in seen])


def prepare_moving(dataset: MovingDigits, out: Path) -> None:
    """Clips (F, 8, 8) of the same digits, each in all directions in turn."""
    images, digit, is_test = digits_of(dataset)
    names = [f"a {NUMERALS[name]} moving {way}" for name, way in product(dataset.classes, DIRECTIONS)]
    clips = np.stack([moving(images[:, 0], *step, dataset.frames) for step in DIRECTIONS.values()], axis=1)
    labels = digit[:, None] * len(DIRECTIONS) + np.arange(len(DIRECTIONS))
    write(dataset, out, clips.reshape(-1, *clips.shape[2:]), labels.ravel(), is_test.repeat(len(DIRECTIONS)), names)


def digits_of(dataset: Digits | MovingDigits) -> tuple[Images, Labels, Mask]:
    """The images of the digits of a data set, the place of each digit in its list, and which images are held out."""
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
    return images[kept], labels[kept], is_test[kept]


def write(
    dataset: Digits | MovingDigits, out: Path, images: Images, labels: Labels, is_test: Mask, names: Sequence[str]
) -> None:
    splits = {name: (images[rows], labels[rows]) for name, rows in (("train", ~is_test), ("test", is_test))}
    write_store(out, splits, class_names=names, source=dataset.model_dump(mode="json"))


# ------------------------------------------------------------------------------------------------ captions and motion


def ink(images: Images) -> NDArray[np.float64]:
    """The mean value of each image: (N, 1, 8, 8) -> (N,)."""
    return images.mean(axis=(1, 2, 3))


def slope(images: Images) -> NDArray[np.float64]:
    """How many columns to the right the ink of each image lies a row further down, by least squares: (N,).

    A digit that leans to the right, like italics, has a negative slope.
    """
    weight = images[:, 0] / images.sum(axis=(1, 2, 3))[:, None, None]
    row, column = np.mgrid[:8, :8]
    row, column = (place - (weight * place).sum(axis=(1, 2))[:, None, None] for place in (row, column))
    return (weight * row * column).sum(axis=(1, 2)) / (weight * row**2).sum(axis=(1, 2))


def part_of(values: NDArray[np.float64], digit: Labels, parts: int) -> Labels:
    """The part of equal size, from 0, that each value falls in among those of its digit: (N,)."""
    found = np.empty(len(values), dtype=np.int64)
    for label in np.unique(digit):
        rows = digit == label
        edges = np.quantile(values[rows], np.arange(1, parts) / parts)
        found[rows] = np.searchsorted(edges, values[rows], side="right")
    return found


def moving(images: Images, down: int, right: int, frames: int) -> Images:
    """Clips (N, F, 8, 8) of images (N, 8, 8) that move by so many pixels a frame. Halfway they are in their place."""
    offsets = [frame - frames // 2 for frame in range(frames)]
    return np.stack([shifted(images, down * offset, right * offset) for offset in offsets], axis=1)


def shifted(images: Images, down: int, right: int) -> Images:
    """Images (N, 8, 8) moved downwards and to the right, with zeros where nothing was."""
    room = max(abs(down), abs(right))
    padded = np.pad(images, [(0, 0), (room, room), (room, room)])
    height, width = images.shape[1:]
    return padded[:, room - down : room - down + height, room - right : room - right + width]
