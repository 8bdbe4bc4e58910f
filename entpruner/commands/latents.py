"""Make a store of latents from the files that the shards have written."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.data.encoding import gather_latents
from entpruner.data.store import Store
from entpruner.layout import CODEC_WEIGHTS
from entpruner.rules.data import AutoencoderSettings
from entpruner.system.files import sha256_of


def run(settings: AutoencoderSettings, *, store: Path, autoencoder: Path, shards: Sequence[Path], out: Path) -> None:
    gather_latents(Store.open(store), settings.latents, sha256_of(autoencoder / CODEC_WEIGHTS), shards, out)
