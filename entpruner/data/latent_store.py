"""The latents of a data store, in a store of their own: the moments of an autoencoder's posterior, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from entpruner.data.store import (
    LABELS,
    Rows,
    Store,
    mapped,
    mapped_labels,
    read_manifest,
    require_sha256,
    rows_of,
)

MOMENTS = "moments.npy"


class LatentManifest(Rows):
    """What a store of latents holds, what it was made from, and the checksums of its files."""

    dtype: Literal["float16"]
    views: Literal[1, 2]
    """Each image; or each image and its mirror image."""
    moments: Literal[1, 2]
    """The latents themselves; or mean and standard deviation of a posterior to draw them from."""
    scale: float
    """What networks see is a latent times this."""
    autoencoder_sha256: str
    """Of its weights."""
    images_sha256: str
    """Of the images that were encoded."""
    moments_sha256: str

    @property
    def row(self) -> tuple[int, int, int, int]:
        """What is kept of one image: (V, M, h, w), where M is C or, for mean and standard deviation, 2C."""
        channels, height, width = self.shape
        return self.views, self.moments * channels, height, width


@dataclass(frozen=True)
class LatentSet:
    """Latents and labels of one split."""

    moments: np.ndarray  # (N, V, M, h, w) float16
    labels: np.ndarray  # (N,) int64
    num_classes: int
    shape: tuple[int, int, int]
    scale: float

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, indices: Tensor | np.ndarray, random: torch.Generator, mirrored: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scaled latents (B, C, h, w) float32 and labels (B,) int64 of the given rows, on the CPU.

        Where a posterior is known they are a draw from it, by ``random``. For those of ``mirrored`` (B,) they are the
        mirror image's: a flipped latent is not one that the autoencoder would give.
        """
        rows = np.asarray(indices)
        views = 0 if mirrored is None else mirrored.long().numpy()
        moments = torch.from_numpy(np.asarray(self.moments[rows, views])).float()  # (B, M, h, w)
        mean, *std = torch.split(moments, self.shape[0], dim=1)
        latents = mean + std[0] * torch.randn(mean.shape, generator=random) if std else mean
        return self.scale * latents, torch.from_numpy(np.asarray(self.labels[rows]))


@dataclass(frozen=True)
class LatentStore:
    """A folder of ``moments.npy`` (N, V, M, h, w) float16, ``labels.npy`` (N,) int64 and ``manifest.json``."""

    path: Path
    manifest: LatentManifest
    moments: np.ndarray
    labels: np.ndarray

    @staticmethod
    def open(path: Path, verify: bool = False) -> "LatentStore":
        """As ``Store.open``."""
        manifest = read_manifest(path, LatentManifest)
        moments = mapped(path / MOMENTS, (manifest.count, *manifest.row), manifest.dtype)
        labels = mapped_labels(path, manifest)
        if verify:
            require_sha256(path / MOMENTS, manifest.moments_sha256)
            require_sha256(path / LABELS, manifest.labels_sha256)
        return LatentStore(path, manifest, moments, labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.manifest.class_names

    @property
    def num_classes(self) -> int:
        return len(self.manifest.class_names)

    def split(self, name: str) -> LatentSet:
        """The latents of one split. Raises UserError if there is no such split."""
        rows, m = rows_of(self.path, self.manifest, name), self.manifest
        return LatentSet(self.moments[rows], self.labels[rows], self.num_classes, m.shape, m.scale)


AnyStore = Store | LatentStore
"""What networks may be trained on."""


def open_store(path: Path) -> AnyStore:
    """The pixels or latents, whichever lie in ``path``. Raises UserError as ``Store.open``."""
    return LatentStore.open(path) if (path / MOMENTS).exists() else Store.open(path)
