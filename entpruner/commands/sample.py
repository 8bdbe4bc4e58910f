"""Sample images from a trained model into a store."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from entpruner.commands.decoding import codec_for
from entpruner.data.store import Store, shown
from entpruner.data.writing import write_store
from entpruner.evaluation.sampling import asked_labels, sampled_batches
from entpruner.layout import CARD, CODEC_CONFIG, CODEC_WEIGHTS, GRID, TIMING, WEIGHTS
from entpruner.models.checkpoints import load_model
from entpruner.process import make_process
from entpruner.rules.evaluate import SampleSettings
from entpruner.system import parallel
from entpruner.system.devices import configure
from entpruner.system.files import whole_folder, write_json
from entpruner.system.journal import Journal
from entpruner.system.recording import Recorder


def run(settings: SampleSettings, *, init: Path, autoencoder: Path | None, latents: Path | None, out: Path) -> None:
    """If the network was trained on the store ``latents``, ``autoencoder`` decodes its samples.

    Every process keeps its finished batches in ``<out>.resume``, so a killed command goes on after them.
    """
    device = configure(settings.compute)
    recorder = Recorder([__name__], settings, device)
    model, card = load_model(init)
    inputs, decode = [init / CARD, init / WEIGHTS], None
    if settings.latents is not None:
        assert autoencoder is not None and latents is not None, "the rule hands over both where there are latents"
        decode = codec_for(model, latents, autoencoder, settings.latents, device).decode
        inputs += [autoencoder / CODEC_CONFIG, autoencoder / CODEC_WEIGHTS]
    if settings.compute.compile:
        model.compile_blocks()
    process, labels = make_process(card.process), asked_labels(model, settings.sampling)
    journal = Journal(out.with_name(out.name + ".resume"), recorder.fingerprint(*inputs))
    parts = [journal.array_file(str(batch)) for batch in range(len(labels))]
    # The first process decides which batches are missing, because others may begin when some are already written.
    own = parallel.mine(parallel.said_by_first([batch for batch, file in enumerate(parts) if not file.exists()]))
    for index, images in sampled_batches(
        model, process, settings.sampling, labels, own, seed=settings.seed, device=device, decode=decode
    ):
        journal.keep(str(index), images)
    parallel.wait()
    if not parallel.is_first():
        return
    source = {"source": "samples", "seed": settings.seed, "sampling": settings.sampling.model_dump(mode="json")}
    with whole_folder(out) as folder:
        batches = [np.load(file, mmap_mode="r", allow_pickle=False) for file in parts]
        write_store(folder, {"samples": (batches, torch.cat(labels).numpy())}, card.class_names, source)
        grid(Store.open(folder).images).save(folder / GRID)
        write_json(folder / TIMING, recorder.record(compiled=model.compiled))
    journal.discard()


def grid(images: NDArray[np.uint8], columns: int = 20, rows: int = 5) -> Image.Image:
    """The first images (N, C, H, W) in a grid, each at least 32 pixels wide. Few images make a smaller grid."""
    images = shown(images[: columns * rows])
    n, c, h, w = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    tiles = np.zeros((rows * columns, c, h, w), np.uint8)
    tiles[:n] = images[:n]
    whole = picture(tiles.reshape(rows, columns, c, h, w).transpose(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w))
    scale = max(1, 32 // w)
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)


def picture(image: NDArray[np.uint8]) -> Image.Image:
    """A picture of one image (C, H, W), grey or RGB, or of the frames of a clip."""
    [image] = shown(image[None])
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
