"""The latents of a data store, in a store of their own: the moments of an autoencoder's posterior, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from entpruner.data.store import LatentSet, Rows, RowStore, Store
from entpruner.layout import MOMENTS


class LatentManifest(Rows):
    """What a store of latents holds, what it was made from, and the checksums of its files."""

    dtype: Literal["float16"]
    views: Literal[1, 2]
    """1 if the latents of each image are stored; 2 if those of its mirror image are stored too."""
    moments: Literal[1, 2]
    """1 if the latents themselves are stored; 2 if mean and standard deviation of the posterior to draw them from."""
    scale: float
    """Networks see the latents multiplied by this."""
    autoencoder_sha256: str
    """Checksum of the weights of the autoencoder."""
    images_sha256: str
    """Checksum of the images that were encoded."""
    moments_sha256: str

    @property
    def row(self) -> tuple[int, int, int, int]:
        """Shape (V, M, h, w) of what is stored of one image; M is C or, for mean and standard deviation, 2C."""
        channels, height, width = self.shape
        return self.views, self.moments * channels, height, width


@dataclass(frozen=True)
class LatentStore(RowStore):
    """A store of latents: its rows are ``moments.npy`` (N, V, M, h, w) float16."""

    manifest: LatentManifest
    FILE, KIND = MOMENTS, LatentManifest

    @property
    def moments(self) -> np.ndarray:
        return self.rows

    def split(self, name: str) -> LatentSet:
        """The latents of one split. Raises UserError if there is no such split."""
        rows, m = self.rows_of(name), self.manifest
        return LatentSet(self.moments[rows], self.labels[rows], self.num_classes, m.shape, m.scale)


AnyStore = Store | LatentStore
"""What networks may be trained on."""


def open_store(path: Path, verify: bool = False) -> AnyStore:
    """The pixels or latents, whichever lie in ``path``. Raises UserError as ``RowStore.open``."""
    return LatentStore.open(path, verify) if (path / MOMENTS).exists() else Store.open(path, verify)
