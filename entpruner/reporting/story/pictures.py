"""Samples of arms as strips of pictures, which a page can hold without another file."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from entpruner.data.store import ImageSet, Store, shown
from entpruner.layout import Layout
from entpruner.study.arms import ArmIdentity

MOST_CLASSES, PER_CLASS = 6, 2
LARGEST = 96
"""The largest height of a picture, in pixels. Larger images are reduced."""


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture(file: Path) -> str:
    """A PNG file as a data URI."""
    return data_uri(file.read_bytes(), "png")


def strip(images: ImageSet) -> str:
    """The first images of the first classes side by side, as a data URI. Arms of one seed share noise and labels."""
    classes = range(min(images.num_classes, MOST_CLASSES))
    chosen = [np.flatnonzero(images.labels == label)[:PER_CLASS] for label in classes]
    pixels = np.asarray(shown(images.images[np.concatenate(chosen)])).transpose(0, 2, 3, 1)  # (n, H, W, C)
    if pixels.shape[3] == 1:
        pixels = pixels.repeat(3, axis=3)
    opaque = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=3)  # (n, H, W, 4)
    gap = max(1, pixels.shape[2] // 12)
    row = np.concatenate(np.pad(opaque, [(0, 0), (0, 0), (0, gap), (0, 0)]), axis=1)[
        :, :-gap
    ]  # (H, n (W + gap) - gap, 4)
    drawn = Image.fromarray(row)
    if drawn.height > LARGEST:
        drawn = drawn.resize((drawn.width * LARGEST // drawn.height, LARGEST))
    made = io.BytesIO()
    drawn.save(made, "png", optimize=True)
    return data_uri(made.getvalue(), "png")


def strips(paths: Layout, arms: Mapping[str, ArmIdentity]) -> dict[str, str]:
    """The label of a row -> its strip: real images, and the samples of each arm. Empty if the images are not there."""
    samples = {label: paths.samples(arm.key) for label, arm in arms.items()}
    real = paths.pixels(next(iter(arms.values())).data)
    if not all(made.files["images"].exists() for made in (real, *samples.values())):
        return {}
    rows = {"real images": Store.open(real.path).split("train")}
    rows |= {label: Store.open(made.path).split("samples") for label, made in samples.items()}
    return {label: strip(images) for label, images in rows.items()}
