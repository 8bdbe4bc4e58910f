"""Encode one shard of a data set's images."""

from pathlib import Path

from entpruner.data.autoencoder import load_autoencoder
from entpruner.data.encoding import encode_shard
from entpruner.data.store import Store
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.latents import Latents
from entpruner.planning.memory import coding as coding_memory
from entpruner.system.devices import configure, require_room


class Settings(Frozen):
    latents: Latents
    shard: int
    """Number of the shard, from 0 to ``latents.shards`` - 1."""
    compute: Compute


def run(settings: Settings, *, store: Path, autoencoder: Path, parts: Path) -> None:
    device = configure(settings.compute)
    images = Store.open(store)
    needed = coding_memory(settings.latents, images.manifest.shape[-1])
    require_room(needed, f"encoding shard {settings.shard} of {store}", device)
    encode_shard(images, load_autoencoder(autoencoder, settings.latents, device), settings.shard, parts)
