"""The data store: images and labels in memory-mapped files, with a manifest that vouches for their bytes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from pydantic import ValidationError, model_validator
from torch import Tensor

from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.system.files import read_json, require_space, sha256_of, whole_folder, write_json

IMAGES, LABELS, MANIFEST = "images.npy", "labels.npy", "manifest.json"


class Rows(Frozen):
    """What is known of a store's rows, be they pixels or latents."""

    count: int
    """N, images of all splits together."""
    shape: tuple[int, int, int]
    """Of one image, as a network sees it: (C, H, W)."""
    class_names: tuple[str, ...]
    """Name of label 0, 1, 2, ..."""
    splits: dict[str, tuple[int, int]]
    """First row of each split and the row after its last; together they are all rows."""
    labels_sha256: str

    @model_validator(mode="after")
    def _splits_are_all_rows(self) -> Self:
        spans = sorted(self.splits.values())
        edges = [0, *(stop for _, stop in spans)]
        if spans != list(pairwise(edges)) or edges[-1] != self.count:
            raise ValueError(f"splits {spans} do not add up to {self.count} rows")
        return self


class Manifest(Rows):
    """What a store of images holds, and the checksums of its files."""

    dtype: Literal["uint8"]
    source: dict[str, Any]
    """Where the images come from, with its settings."""
    images_sha256: str


AnyManifest = TypeVar("AnyManifest", bound=Rows)


class Images(Protocol):
    """What training, scoring and proxies draw their batches from: the pixels of a split, or its latents."""

    @property
    def num_classes(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, as a network sees it: (C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, random: torch.Generator, mirrored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) float32 and labels (B,) int64 of the given rows, on the CPU.

        ``mirrored`` (B,) says which of them left and right change places in. ``random`` (CPU) is drawn from where an
        image is known by a distribution only: B * C * H * W normal numbers, image after image.
        """
        ...


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one split."""

    images: np.ndarray  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def batch(
        self,
        indices: Tensor | np.ndarray,
        random: torch.Generator | None = None,
        mirrored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) float32 in [-1, 1] and labels (B,) int64 of the given rows, on the CPU.

        Those of ``mirrored`` (B,) are flipped. Nothing is drawn from ``random``.
        """
        rows = np.asarray(indices)
        x = torch.from_numpy(np.asarray(self.images[rows])).float() / 127.5 - 1
        if mirrored is not None:
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return x, torch.from_numpy(np.asarray(self.labels[rows]))


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes, by DiT's rule: 127.5 x + 128, clamped and truncated. Inverts ``ImageSet.batch``."""
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Store:
    """A folder of ``images.npy`` (N, C, H, W) uint8, ``labels.npy`` (N,) int64 and ``manifest.json``."""

    path: Path
    manifest: Manifest
    images: np.ndarray
    labels: np.ndarray

    @staticmethod
    def open(path: Path, verify: bool = False) -> "Store":
        """Map a store's files and hold them against its manifest; ``verify`` hashes their content too.

        Raises UserError if the store is missing or its manifest and bytes disagree.
        """
        manifest = read_manifest(path, Manifest)
        images = mapped(path / IMAGES, (manifest.count, *manifest.shape), manifest.dtype)
        labels = mapped_labels(path, manifest)
        if verify:
            for file, expected in ((IMAGES, manifest.images_sha256), (LABELS, manifest.labels_sha256)):
                require_sha256(path / file, expected)
        return Store(path, manifest, images, labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.manifest.class_names

    @property
    def num_classes(self) -> int:
        return len(self.manifest.class_names)

    def split(self, name: str) -> ImageSet:
        """The images of one split. Raises UserError if there is no such split."""
        rows = rows_of(self.path, self.manifest, name)
        return ImageSet(self.images[rows], self.labels[rows], self.num_classes)


def rows_of(path: Path, manifest: Rows, split: str) -> slice:
    """Raises UserError if there is no such split."""
    if split not in manifest.splits:
        raise UserError(f"{path}: no split {split!r}; it has {', '.join(manifest.splits)}")
    return slice(*manifest.splits[split])


def read_manifest(path: Path, kind: type[AnyManifest]) -> AnyManifest:
    """Raises UserError if there is none in the folder ``path``, or one of something else."""
    try:
        return kind.model_validate(read_json(path / MANIFEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no data store here ({MANIFEST} is missing); prepare the data again") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise damaged(path / MANIFEST, f"{key}: {first['msg']}" if key else first["msg"]) from error
    except ValueError as error:
        raise damaged(path / MANIFEST, f"it is not JSON: {error}") from error


def damaged(file: Path, what: str) -> UserError:
    return UserError(f"{file}: {what}; the store is damaged: delete {file.parent} and prepare the data again")


def mapped_labels(path: Path, manifest: Rows) -> np.memmap:
    """A store's labels (N,) int64. Raises UserError as ``mapped`` does, and if one has no class."""
    labels = mapped(path / LABELS, (manifest.count,), "int64")
    classes = len(manifest.class_names)
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise damaged(path / LABELS, f"its labels are {labels.min()} to {labels.max()}, for {classes} classes")
    return labels


def require_sha256(file: Path, expected: str) -> None:
    if (found := sha256_of(file)) != expected:
        raise damaged(file, f"its sha256 is {found}, the manifest says {expected}")


def mapped(file: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
    """An .npy file mapped read-only. Raises UserError unless it has this shape and dtype, to the byte."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(file, f"it can't be read ({error})") from error
    if array.shape != shape or array.dtype != dtype:
        raise damaged(file, f"it holds {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
    if (size := file.stat().st_size) != array.offset + array.nbytes:
        raise damaged(file, f"it has {size} bytes, its header says {array.offset + array.nbytes}")
    return array


@contextmanager
def new_store(
    path: Path,
    counts: Mapping[str, int],
    shape: tuple[int, int, int],
    class_names: Sequence[str],
    source: dict[str, Any],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Arrays to fill, images (N, C, H, W) uint8 on disk and labels (N,) int64, that become a store at the end.

    ``counts`` says how many rows each split has; the splits lie one after the other in its order. The store appears
    whole when the block ends well, and replaces an earlier one; after an error nothing of it is left.
    """
    count = sum(counts.values())
    with whole_folder(path) as folder:
        require_space(folder, count * math.prod(shape), what=str(path))  # a full disk would kill who writes to its map
        images = np.lib.format.open_memmap(folder / IMAGES, mode="w+", dtype=np.uint8, shape=(count, *shape))
        labels = np.zeros(count, dtype=np.int64)
        yield images, labels
        images.flush()
        vouch(folder, labels, counts, shape, class_names, source)


def vouch(
    folder: Path,
    labels: np.ndarray,
    counts: Mapping[str, int],
    shape: tuple[int, int, int],
    class_names: Sequence[str],
    source: dict[str, Any],
) -> None:
    """Make a store of a folder that holds the images: write its labels (N,) int64 and manifest, as in ``new_store``."""
    np.save(folder / LABELS, labels, allow_pickle=False)
    edges = [0, *accumulate(counts.values())]
    manifest = Manifest(
        count=edges[-1],
        shape=shape,
        dtype="uint8",
        class_names=tuple(class_names),
        splits=dict(zip(counts, pairwise(edges), strict=True)),
        source=source,
        images_sha256=sha256_of(folder / IMAGES),
        labels_sha256=sha256_of(folder / LABELS),
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def write_store(
    path: Path,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    source: dict[str, Any],
) -> None:
    """Write images (n, C, H, W) uint8 and labels (n,) int64 that are in memory, by split. Same input, same bytes."""
    images, labels = zip(*splits.values(), strict=True)
    counts = {name: len(rows) for name, (_, rows) in splits.items()}
    with new_store(path, counts, images[0].shape[1:], class_names, source) as (all_images, all_labels):
        np.concatenate(images, out=all_images, casting="equiv")  # float images are an error, never cast to bytes
        np.concatenate(labels, out=all_labels, casting="equiv")
