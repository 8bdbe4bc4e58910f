"""The autoencoder that makes images of the latents that a network samples."""

from pathlib import Path

import torch

from entpruner.data.autoencoder import Codec, load_autoencoder
from entpruner.data.latent_store import LatentManifest
from entpruner.data.store import read_manifest
from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.latents import Latents


def codec_for(model: BlockNetwork, latents: Path, folder: Path, settings: Latents, device: torch.device) -> Codec:
    """The autoencoder in ``folder``. Raises UserError if it did not make ``latents`` or does not fit the model."""
    codec, made = load_autoencoder(folder, settings, device), read_manifest(latents, LatentManifest)
    if (made.autoencoder_sha256, made.scale) != (codec.sha256, settings.scale):
        raise UserError(f"{latents}: not the latents of {folder} at scale {settings.scale}; encode the data again")
    a = model.architecture
    if made.shape != (a.in_channels, a.input_size, a.input_size):
        raise UserError(
            f"{latents}: latents of shape {made.shape}, for a model of inputs ({a.in_channels}, {a.input_size}, "
            f"{a.input_size}); train it on these latents"
        )
    return codec
