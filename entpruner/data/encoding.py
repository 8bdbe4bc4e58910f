"""A data store's images as a store of latents, encoded in shards that run side by side and survive a kill each.

    <parts>/moments.npy          what is kept of all images; every shard writes its own rows
    <parts>/<shard>.json.resume  the rows that a shard has written so far, with their checksums: a journal
    <parts>/<shard>.json         a shard that is done

Once all are done the file moves into a store, as ``latents.py`` reads it.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from entpruner.data.autoencoder import Codec
from entpruner.data.latent_store import MOMENTS, LatentManifest
from entpruner.data.rows import RowFile, kept_when_full
from entpruner.data.store import LABELS, MANIFEST, ImageSet, Store
from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.params.latents import Latents
from entpruner.system.files import read_json, whole_folder, write_json
from entpruner.system.journal import Journal
from entpruner.system.provenance import code_digest

SAID = 1_000  # images between two lines of the log

log = logging.getLogger(__name__)


class Shard(Frozen):
    """What one shard has written."""

    rows: tuple[int, int]
    """The first, and the one after the last."""
    sha256: str
    """Of their bytes."""
    fingerprint: str
    """Of what they depend on."""


def encode_shard(store: Store, codec: Codec, shard: int, parts: Path) -> None:
    """Encode the images of a shard (from 0) into its rows of ``<parts>/moments.npy``, then write ``<shard>.json``.

    Killed, or stopped by a full disk, it goes on after the last batch of rows that reached the disk. Raises UserError
    if the disk is too small or runs full, if an encoding is not finite, or if rows don't read as they were written.
    """
    settings = codec.settings
    out = parts / f"{shard}.json"
    dependence = fingerprint(store, settings, codec.sha256)
    array = moment_file(parts, store, settings)
    first, stop = rows_of_shard(store, settings, shard)
    batches = pieces(first, stop, settings.batch_size)
    with kept_when_full(parts):
        array.create("the latents", advice=", or set latents.mirror to false")
        journal = Journal(out.with_name(out.name + ".resume"), dependence)
        for rows in batches:
            journal.record(f"{rows.start}-{rows.stop}", partial(encode_rows, store, codec, array, rows))
            if (rows.stop - first) // SAID > (rows.start - first) // SAID:
                log.info("%d of %d images", rows.stop - first, stop - first)
        whole = hashlib.sha256()
        for rows in batches:
            batch = hashlib.sha256()
            for content in array.read(rows):
                batch.update(content)
                whole.update(content)
            if batch.hexdigest() != journal.done[f"{rows.start}-{rows.stop}"]:
                journal.discard()
                raise UserError(f"{array.path}: row {rows.start} is not what was written there; run this again")
        done = Shard(rows=(first, stop), sha256=whole.hexdigest(), fingerprint=dependence)
        write_json(out, done.model_dump(mode="json"))
    journal.discard()


def encode_rows(store: Store, codec: Codec, array: RowFile, rows: range) -> str:
    """Encode some images, force their rows to the disk, and return these rows' checksum."""
    images = ImageSet(store.images, store.labels, store.num_classes)
    x, _ = images.batch(np.arange(rows.start, rows.stop))  # (n, 3, H, W)
    views = [x, x.flip(-1)] if codec.settings.mirror else [x]
    moments = torch.stack([codec.encode(view) for view in views], dim=1).half().cpu()  # (n, V, M, h, w)
    if not moments.isfinite().all():
        raise UserError(f"{store.path}: rows {rows.start} to {rows.stop - 1} have latents that are not finite numbers")
    content = moments.numpy().tobytes()
    array.write([(rows.start, content)])
    return hashlib.sha256(content).hexdigest()


def gather_latents(
    store: Store, settings: Latents, autoencoder_sha256: str, markers: Sequence[Path], out: Path
) -> None:
    """Make a store of latents in ``out`` of what the shards, whose files are given in order, have written.

    Raises UserError if some shards are of other images or another autoencoder, or their rows not what they wrote; the
    files of these are deleted, so that they are encoded anew.
    """
    array = moment_file(markers[0].parent, store, settings)
    dependence = fingerprint(store, settings, autoencoder_sha256)
    whole, bad = hashlib.sha256(array.header), []
    for shard, marker in enumerate(markers):
        rows = rows_of_shard(store, settings, shard)
        done = read_shard(marker)
        if done is None or (done.fingerprint, done.rows) != (dependence, rows):
            bad.append((marker, "it was not made from these images by this autoencoder"))
            continue
        digest = hashlib.sha256()
        for content in array.read(range(*rows)):
            digest.update(content)
            whole.update(content)
        if digest.hexdigest() != done.sha256:
            bad.append((marker, f"rows {rows[0]} to {rows[1] - 1} of {array.path} are not what it wrote"))
    for marker, _ in bad:
        marker.unlink()
    if bad:
        marker, reason = bad[0]
        raise UserError(f"{marker}: {reason}; run again to encode {len(bad)} of {len(markers)} shards anew")
    with whole_folder(out) as folder:
        shutil.copyfile(store.path / LABELS, folder / LABELS)
        manifest = LatentManifest(
            count=store.manifest.count,
            shape=latent_shape(store, settings),
            class_names=store.manifest.class_names,
            splits=store.manifest.splits,
            labels_sha256=store.manifest.labels_sha256,
            dtype="float16",
            views=settings.views,
            moments=settings.moments,
            scale=settings.scale,
            autoencoder_sha256=autoencoder_sha256,
            images_sha256=store.manifest.images_sha256,
            moments_sha256=whole.hexdigest(),
        )
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
        array.move(folder / MOMENTS)
    array.path.unlink(missing_ok=True)


def read_shard(marker: Path) -> Shard | None:
    """None for a file that holds something else."""
    try:
        return Shard.model_validate(read_json(marker))
    except ValueError:
        return None


def rows_of_shard(store: Store, settings: Latents, shard: int) -> tuple[int, int]:
    """The shards share the rows evenly, in order; with more shards than rows, some have none."""
    count, shards = store.manifest.count, settings.shards
    return count * shard // shards, count * (shard + 1) // shards


def pieces(first: int, stop: int, size: int) -> list[range]:
    return [range(begin, min(begin + size, stop)) for begin in range(first, stop, size)]


def fingerprint(store: Store, settings: Latents, autoencoder_sha256: str) -> str:
    """Digest of all that a store's moments depend on; shards, batches and the scale are not among it."""
    parts = [store.manifest.images_sha256, autoencoder_sha256, settings.kind, settings.mirror]
    return hashlib.sha256(json.dumps([*parts, code_digest(__name__)]).encode()).hexdigest()


def moment_file(parts: Path, store: Store, settings: Latents) -> RowFile:
    """``moments.npy`` (N, V, M, h, w) float16, which every shard writes rows of."""
    channels, height, width = latent_shape(store, settings)
    row = (settings.views, settings.moments * channels, height, width)
    return RowFile(parts / MOMENTS, np.float16, (store.manifest.count, *row))


def latent_shape(store: Store, settings: Latents) -> tuple[int, int, int]:
    _, height, width = store.manifest.shape
    if height % settings.factor or width % settings.factor:
        raise UserError(f"{store.path}: images of {height} x {width}, not a multiple of latents.factor")
    return settings.channels, height // settings.factor, width // settings.factor
