"""Sample images from a trained model into a store."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entpruner.artefacts import whole_folder, write_json
from entpruner.commands.recording import Recorder
from entpruner.compute import configure
from entpruner.data.store import write_store
from entpruner.evaluation.sampling import sample_images
from entpruner.models.checkpoints import load_model
from entpruner.params import Compute, Frozen, Sampling
from entpruner.process import make_process


class Settings(Frozen):
    seed: int
    sampling: Sampling
    compute: Compute


def run(settings: Settings, *, init: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    model, card = load_model(init)
    images, labels = sample_images(
        model, make_process(card.process), settings.sampling, seed=settings.seed, device=device
    )
    source = {"source": "samples", "seed": settings.seed, "sampling": settings.sampling.model_dump(mode="json")}
    with whole_folder(out) as folder:
        write_store(folder, {"samples": (images, labels)}, card.class_names, source)
        grid(images).save(folder / "grid.png")
        write_json(folder / "timing.json", recorder.record())


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
