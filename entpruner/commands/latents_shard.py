"""Encode one shard of a data set's images."""

from pathlib import Path

from entpruner.compute import configure
from entpruner.data.autoencoder import load_autoencoder
from entpruner.data.encoding import encode_shard
from entpruner.data.store import Store
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.latents import Latents


class Settings(Frozen):
    latents: Latents
    shard: int
    """From 0 to ``latents.shards`` - 1."""
    compute: Compute


def run(settings: Settings, *, store: Path, autoencoder: Path, parts: Path) -> None:
    device = configure(settings.compute)
    codec = load_autoencoder(autoencoder, settings.latents, device)
    encode_shard(Store.open(store), codec, settings.shard, parts)
