"""A data store's images as a store of latents. Shards are encoded side by side; a killed one is encoded anew.

    <parts>/moments.npy   the moments of all images; every shard writes its own rows
    <parts>/<shard>.json  exists once the shard is done, and holds the checksum of its rows

Once all shards are done, the file moves into a store of latents (see ``latent_store.py``).
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from entpruner.data.autoencoder import Codec
from entpruner.data.latent_store import LatentManifest
from entpruner.data.rows import RowFile
from entpruner.data.store import ImageSet, Store
from entpruner.errors import UserError
from entpruner.layout import LABELS, MANIFEST, MOMENTS
from entpruner.params.base import Frozen
from entpruner.params.latents import Latents
from entpruner.system.files import kept_when_full, read_json, sha256_of, whole_folder, write_json
from entpruner.system.provenance import code_digest

SAID = 1_000  # images between two lines of the log

log = logging.getLogger(__name__)


class Shard(Frozen):
    """What is known of a shard that is done."""

    rows: tuple[int, int]
    """The shard's first row, and the one after its last."""
    sha256: str
    """Checksum of the bytes of these rows."""
    fingerprint: str
    """Digest of the images, autoencoder, settings and code that they depend on."""


def encode_shard(store: Store, codec: Codec, shard: int, parts: Path) -> None:
    """Encode the images of a shard (from 0) into its rows of ``<parts>/moments.npy``, then write ``<shard>.json``.

    Raises UserError if the disk is too small or runs full, or if an encoding is not finite.
    """
    array = moment_file(parts, store, codec.settings)
    first, stop = rows_of_shard(store, codec.settings, shard)
    with kept_when_full(parts):
        array.create("the latents", advice=", or set latents.mirror to false")
        sha256 = array.write(encoded(store, codec, first, stop))
        done = Shard(rows=(first, stop), sha256=sha256, fingerprint=fingerprint(store, codec.settings, codec.sha256))
        write_json(parts / f"{shard}.json", done.model_dump(mode="json"))


def encoded(store: Store, codec: Codec, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Encode the images of these rows, batch by batch: the first row of each batch, and the bytes from there on."""
    images = ImageSet(store.images, store.labels, store.num_classes)
    for begin in range(first, stop, codec.settings.batch_size):
        end = min(begin + codec.settings.batch_size, stop)
        x, _ = images.batch(np.arange(begin, end))  # (n, 3, H, W)
        views = [x, x.flip(-1)] if codec.settings.mirror else [x]
        moments = torch.stack([codec.encode(view) for view in views], dim=1).half().cpu()  # (n, V, M, h, w)
        if not moments.isfinite().all():
            raise UserError(f"{store.path}: rows {begin} to {end - 1} have latents that are not finite numbers")
        yield begin, moments.numpy().tobytes()
        if (end - first) // SAID > (begin - first) // SAID:
            log.info("%d of %d images", end - first, stop - first)


def gather_latents(
    store: Store, settings: Latents, autoencoder_sha256: str, markers: Sequence[Path], out: Path
) -> None:
    """Make a store of latents in ``out`` from what the shards have written; ``markers`` are their files, in order.

    Raises UserError if a shard is of other images or another autoencoder, or if its rows are not what it wrote. The
    markers of such shards are deleted, so that they are encoded anew.
    """
    array = moment_file(markers[0].parent, store, settings)
    dependence, bad = fingerprint(store, settings, autoencoder_sha256), []
    for shard, marker in enumerate(markers):
        rows, done = rows_of_shard(store, settings, shard), read_shard(marker)
        if done is None or (done.fingerprint, done.rows) != (dependence, rows):
            bad.append((marker, "it was not made from these images by this autoencoder"))
        elif array.checksum(range(*rows)) != done.sha256:
            bad.append((marker, f"rows {rows[0]} to {rows[1] - 1} of {array.path} are not what it wrote"))
    for marker, _ in bad:
        marker.unlink()
    if bad:
        marker, reason = bad[0]
        raise UserError(f"{marker}: {reason}; run again to encode {len(bad)} of {len(markers)} shards anew")
    with whole_folder(out) as folder:
        shutil.copyfile(store.path / LABELS, folder / LABELS)
        array.move(folder / MOMENTS)
        manifest = LatentManifest(
            **store.manifest.model_dump(include={"count", "class_names", "splits", "labels_sha256", "images_sha256"}),
            shape=latent_shape(store, settings),
            dtype="float16",
            views=settings.views,
            moments=settings.moments,
            scale=settings.scale,
            autoencoder_sha256=autoencoder_sha256,
            moments_sha256=sha256_of(folder / MOMENTS),
        )
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    array.path.unlink(missing_ok=True)


def read_shard(marker: Path) -> Shard | None:
    """What a shard's file holds; None if that is something else."""
    try:
        return Shard.model_validate(read_json(marker))
    except ValueError:
        return None


def rows_of_shard(store: Store, settings: Latents, shard: int) -> tuple[int, int]:
    """First row of a shard, and the row after its last. With more shards than rows, some shards are empty."""
    count, shards = store.manifest.count, settings.shards
    return count * shard // shards, count * (shard + 1) // shards


def fingerprint(store: Store, settings: Latents, autoencoder_sha256: str) -> str:
    """Digest of all that a store's moments depend on. They depend neither on shards or batches nor on the scale."""
    parts = [store.manifest.images_sha256, autoencoder_sha256, settings.kind, settings.mirror]
    return hashlib.sha256(json.dumps([*parts, code_digest(__name__)]).encode()).hexdigest()


def moment_file(parts: Path, store: Store, settings: Latents) -> RowFile:
    """The array (N, V, M, h, w) float16 that every shard writes its rows of."""
    channels, height, width = latent_shape(store, settings)
    row = (settings.views, settings.moments * channels, height, width)
    return RowFile(parts / MOMENTS, np.float16, (store.manifest.count, *row))


def latent_shape(store: Store, settings: Latents) -> tuple[int, int, int]:
    _, height, width = store.manifest.shape
    if height % settings.factor or width % settings.factor:
        raise UserError(f"{store.path}: images of {height} x {width}, not a multiple of latents.factor")
    return settings.channels, height // settings.factor, width // settings.factor
