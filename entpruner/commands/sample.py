"""Sample images from a trained model into a store."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from entpruner.artefacts import whole_folder, write_json
from entpruner.commands.recording import Recorder
from entpruner.compute import configure
from entpruner.data.autoencoder import Codec, load_autoencoder
from entpruner.data.latents import LatentManifest
from entpruner.data.store import read_manifest, write_store
from entpruner.errors import UserError
from entpruner.evaluation.sampling import sample_images
from entpruner.models.checkpoints import load_model
from entpruner.models.network import BlockNetwork
from entpruner.params import Compute, Frozen, Latents, Sampling
from entpruner.process import make_process


class Settings(Frozen):
    seed: int
    sampling: Sampling
    latents: Latents | None = None
    """What the network works on, if not pixels."""
    compute: Compute


def run(settings: Settings, *, init: Path, autoencoder: Path | None, latents: Path | None, out: Path) -> None:
    """``autoencoder`` decodes what a network samples that was trained on the store ``latents``."""
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    model, card = load_model(init)
    decode = None
    if settings.latents is not None:
        assert autoencoder is not None and latents is not None, "the rule hands over both where there are latents"
        decode = codec_for(model, latents, autoencoder, settings.latents, device).decode
    images, labels = sample_images(
        model, make_process(card.process), settings.sampling, seed=settings.seed, device=device, decode=decode
    )
    source = {"source": "samples", "seed": settings.seed, "sampling": settings.sampling.model_dump(mode="json")}
    with whole_folder(out) as folder:
        write_store(folder, {"samples": (images, labels)}, card.class_names, source)
        grid(images).save(folder / "grid.png")
        write_json(folder / "timing.json", recorder.record())


def codec_for(model: BlockNetwork, latents: Path, folder: Path, settings: Latents, device: torch.device) -> Codec:
    """The autoencoder in ``folder``. Raises UserError if ``latents`` are not its own, or not of the model's shape."""
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


def grid(images: NDArray[np.uint8], columns: int = 20, rows: int = 5) -> Image.Image:
    """The first images (N, C, H, W) as one picture, each at least 32 pixels wide."""
    n, c, h, w = images[: columns * rows].shape
    tiles = np.zeros((rows * columns, c, h, w), np.uint8)
    tiles[:n] = images[:n]
    whole = picture(tiles.reshape(rows, columns, c, h, w).transpose(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w))
    scale = max(1, 32 // w)
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)


def picture(image: NDArray[np.uint8]) -> Image.Image:
    """One image (C, H, W), grey or RGB."""
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
