"""The data store: images and labels in memory-mapped files, with a manifest that holds their checksums."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import ValidationError, model_validator
from torch import Tensor

from entpruner.errors import UserError
from entpruner.layout import IMAGES, LABELS, MANIFEST
from entpruner.params.base import Frozen, first_problem
from entpruner.system.files import intact, read_json, sha256_of


class Rows(Frozen):
    """What a store's manifest says, be its rows pixels or latents."""

    count: int
    """N, the number of images of all splits together."""
    shape: tuple[int, int, int]
    """Shape (C, H, W) of one image, as a network sees it."""
    class_names: tuple[str, ...]
    """Name of label 0, 1, 2, ..."""
    splits: dict[str, tuple[int, int]]
    """First row of each split and the row after its last; together they are all rows."""
    labels_sha256: str
    dtype: str

    @model_validator(mode="after")
    def _splits_are_all_rows(self) -> Self:
        spans = sorted(self.splits.values())
        edges = [0, *(stop for _, stop in spans)]
        if spans != list(pairwise(edges)) or edges[-1] != self.count:
            raise ValueError(f"splits {spans} do not add up to {self.count} rows")
        return self

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of what is stored of one image."""
        return self.shape


class Manifest(Rows):
    """What a store of images holds, and the checksums of its files."""

    dtype: Literal["uint8"]
    source: dict[str, Any]
    """Where the images come from, with the settings of that source."""
    images_sha256: str


AnyManifest = TypeVar("AnyManifest", bound=Rows)


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
        """Shape (C, H, W) of one image, as a network sees it."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def batch(
        self,
        indices: Tensor | np.ndarray,
        random: torch.Generator | None = None,
        mirrored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) float32 in [-1, 1] and labels (B,) int64 of the given rows, on the CPU.

        Left and right change places in the images that ``mirrored`` (B,) names. Nothing is drawn from ``random``.
        """
        rows = np.asarray(indices)
        x = torch.from_numpy(np.asarray(self.images[rows])).float() / 127.5 - 1
        if mirrored is not None:
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return x, torch.from_numpy(np.asarray(self.labels[rows]))


@dataclass(frozen=True)
class LatentSet:
    """Latents and labels of one split, with the interface of ``ImageSet``."""

    moments: np.ndarray  # (N, V, M, h, w) float16
    labels: np.ndarray  # (N,) int64
    num_classes: int
    shape: tuple[int, int, int]
    """Shape (C, h, w) of one latent, as a network sees it."""
    scale: float

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, indices: Tensor | np.ndarray, random: torch.Generator, mirrored: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scaled latents (B, C, h, w) float32 and labels (B,) int64 of the given rows, on the CPU.

        If posteriors are stored, B * C * h * w normal numbers are drawn from ``random`` (CPU), image after image. A
        mirrored image has the stored latents of its mirror image, because flipped latents would be others.
        """
        rows = np.asarray(indices)
        views = 0 if mirrored is None else mirrored.long().numpy()
        moments = torch.from_numpy(np.asarray(self.moments[rows, views])).float()  # (B, M, h, w)
        mean, *std = torch.split(moments, self.shape[0], dim=1)
        latents = mean + std[0] * torch.randn(mean.shape, generator=random) if std else mean
        return self.scale * latents, torch.from_numpy(np.asarray(self.labels[rows]))


Images = ImageSet | LatentSet
"""What training, scoring and proxies draw their batches from."""


def shown(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) in a form that can be drawn: the frames of clips, which are their channels, side by side.

    Images of 1 or 3 channels stay as they are. Clips become (N, 1, H, F W).
    """
    n, channels, height, width = images.shape
    if channels in (1, 3):
        return images
    return np.asarray(images).transpose(0, 2, 1, 3).reshape(n, 1, height, channels * width)


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes, by DiT's rule: 127.5 x + 128, clamped and truncated. Inverts ``ImageSet.batch``."""
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class RowStore:
    """A folder with the rows of all images in ``FILE``, ``labels.npy`` (N,) int64 and ``manifest.json``."""

    path: Path
    manifest: Rows
    rows: np.ndarray
    """One row an image, mapped into memory and read-only."""
    labels: np.ndarray

    FILE: ClassVar[str]
    KIND: ClassVar[type[Rows]]

    @classmethod
    def open(cls, path: Path, verify: bool = False) -> Self:
        """Map a store's files, if they are ``intact``, and compare them with its manifest.

        ``verify`` compares all their bytes with it, of large files too. Raises UserError if the store is missing or
        damaged, or if its manifest and bytes disagree.
        """
        manifest = read_manifest(path, cls.KIND)
        rows = mapped(path / cls.FILE, (manifest.count, *manifest.row), manifest.dtype)
        labels, classes = mapped(path / LABELS, (manifest.count,), "int64"), len(manifest.class_names)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise damaged(path / LABELS, f"its labels are {labels.min()} to {labels.max()}, for {classes} classes")
        for file in (path / cls.FILE, path / LABELS) if verify else ():
            expected = getattr(manifest, f"{file.stem}_sha256")
            if (found := sha256_of(file)) != expected:
                raise damaged(file, f"its sha256 is {found}, the manifest says {expected}")
        return cls(path, manifest, rows, labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.manifest.class_names

    @property
    def num_classes(self) -> int:
        return len(self.manifest.class_names)

    def rows_of(self, split: str) -> slice:
        """Raises UserError if there is no such split."""
        if split not in self.manifest.splits:
            raise UserError(f"{self.path}: no split {split!r}; it has {', '.join(self.manifest.splits)}")
        return slice(*self.manifest.splits[split])


@dataclass(frozen=True)
class Store(RowStore):
    """A store of pixels: its rows are ``images.npy`` (N, C, H, W) uint8."""

    manifest: Manifest
    FILE, KIND = IMAGES, Manifest

    @property
    def images(self) -> np.ndarray:
        return self.rows

    def split(self, name: str) -> ImageSet:
        """The images of one split. Raises UserError if there is no such split."""
        rows = self.rows_of(name)
        return ImageSet(self.images[rows], self.labels[rows], self.num_classes)


def read_manifest(path: Path, kind: type[AnyManifest]) -> AnyManifest:
    """Raises UserError if there is none in the folder ``path``, or one of something else."""
    try:
        return kind.model_validate(read_json(path / MANIFEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no data store here ({MANIFEST} is missing); prepare the data again") from error
    except ValidationError as error:
        raise damaged(path / MANIFEST, first_problem(error)) from error
    except ValueError as error:
        raise damaged(path / MANIFEST, f"it is not JSON: {error}") from error


def damaged(file: Path, what: str) -> UserError:
    return UserError(f"{file}: {what}; the store is damaged: delete {file.parent} and prepare the data again")


def mapped(file: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
    """An .npy file mapped read-only. Raises UserError unless it has this shape and dtype, to the byte."""
    try:
        array = np.load(intact(file), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(file, f"it can't be read ({error})") from error
    if array.shape != shape or array.dtype != dtype:
        raise damaged(file, f"it holds {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
    if (size := file.stat().st_size) != array.offset + array.nbytes:
        raise damaged(file, f"it has {size} bytes, its header says {array.offset + array.nbytes}")
    return array
