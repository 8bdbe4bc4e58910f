"""Images from a trained network, to measure and to look at: the same noise and labels for every arm of a seed."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entpruner.data.store import to_uint8
from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params import Sampling
from entpruner.process import Process
from entpruner.randomness import generator
from entpruner.training.progress import Progress


def sample_images(
    model: BlockNetwork,
    process: Process,
    settings: Sampling,
    *,
    seed: int,
    device: torch.device,
    classes: Sequence[int] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``settings.samples`` images (n, C, H, W) and the classes (n,) that were asked for, in turn: all, or ``classes``.

    Batch i draws from (seed, "sampling", i) and from nothing else, so two networks of one data set start from the same
    noise: their images can stand side by side and their distances share the sampling noise. ``decode`` makes images of
    the latents of a network that works on such.

    Raises UserError if an image is not finite.
    """
    a = model.architecture
    asked = torch.tensor(classes or range(a.num_classes))
    labels = asked[torch.arange(settings.samples) % len(asked)]
    batches = torch.split(labels, settings.batch_size)
    images = []
    model = model.to(device).eval()
    with Progress(0, len(batches), settings.batch_size) as progress:
        for index, y in enumerate(batches):
            draw = generator(seed, "sampling", index)
            noise = torch.randn(len(y), a.in_channels, a.input_size, a.input_size, generator=draw)
            x = process.sample(model, noise.to(device), y.to(device), settings, draw)
            if not x.isfinite().all():
                raise UserError(
                    f"sampling: batch {index} is not finite; the network diverged, train it at a lower rate"
                )
            images.append(to_uint8(decode(x) if decode else x).cpu())
            progress.update(index + 1, None)
    return torch.cat(images).numpy(), labels.numpy()
