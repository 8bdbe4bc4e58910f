"""Data stores are written: whole, or not at all."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from entpruner.data.rows import RowFile
from entpruner.data.store import Manifest
from entpruner.layout import IMAGES, LABELS, MANIFEST
from entpruner.system.files import sha256_of, whole_folder, write_json


class Contents(NamedTuple):
    """What a store of images is to hold."""

    counts: Mapping[str, int]
    """Number of rows of each split; the splits lie one after the other in this order."""
    shape: tuple[int, int, int]
    class_names: Sequence[str]
    source: dict[str, Any]
    """Where the images come from, with the settings of that source."""


def write_store(
    path: Path,
    splits: Mapping[str, tuple[Sequence[np.ndarray] | np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    source: dict[str, Any],
) -> None:
    """Write a store of images (n, C, H, W) uint8, or a list of batches of them, and labels (n,) int64, by split.

    It appears whole and replaces an earlier one; after an error nothing of it is left. Same input, same bytes.
    """
    parts = [part for images, _ in splits.values() for part in images]
    shape = parts[0].shape[-3:]
    rows = (row.astype(np.uint8, "C", "equiv", copy=False) for part in parts for row in part.reshape(-1, *shape))
    labels = np.concatenate([labels for _, labels in splits.values()], dtype=np.int64, casting="equiv")
    counts = {name: len(labels) for name, (_, labels) in splits.items()}
    with whole_folder(path) as folder:
        file = RowFile(folder / IMAGES, np.uint8, (len(labels), *shape))
        file.create(f"the images of {path}")
        file.write((number, row.data) for number, row in enumerate(rows))
        finish_store(folder, labels, Contents(counts, shape, class_names, source))


def finish_store(folder: Path, labels: np.ndarray, contents: Contents) -> None:
    """Make a store of a folder that holds the images: write their labels (N,) int64 and the manifest."""
    np.save(folder / LABELS, labels, allow_pickle=False)
    edges = [0, *accumulate(contents.counts.values())]
    manifest = Manifest(
        count=edges[-1],
        shape=contents.shape,
        dtype="uint8",
        class_names=tuple(contents.class_names),
        splits=dict(zip(contents.counts, pairwise(edges), strict=True)),
        source=contents.source,
        images_sha256=sha256_of(folder / IMAGES),
        labels_sha256=sha256_of(folder / LABELS),
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
