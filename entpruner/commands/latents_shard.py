"""Encode one shard of a data set's images."""

from pathlib import Path

from entpruner.data.autoencoder import load_autoencoder
from entpruner.data.encoding import encode_shard
from entpruner.data.store import Store
from entpruner.rules.data import ShardSettings
from entpruner.system.devices import configure


def run(settings: ShardSettings, *, store: Path, autoencoder: Path, parts: Path) -> None:
    device = configure(settings.compute)
    images = Store.open(store)
    encode_shard(images, load_autoencoder(autoencoder, settings.latents, device), settings.shard, parts)
