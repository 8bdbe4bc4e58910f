"""Images from a trained network, to measure and to look at: the same noise and labels for every arm of a seed."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entpruner.data.store import to_uint8
from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.sampling import Sampling
from entpruner.process import Process
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator


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

    ``decode`` makes images of the latents of a network that works on such. Raises UserError if an image is not finite.
    """
    labels = asked_labels(model, settings, classes)
    parts = sampled_batches(
        model,
        process,
        settings,
        range(len(labels)),
        seed=seed,
        device=device,
        classes=classes,
        decode=decode,
    )
    images = [batch for _, batch in parts]
    return np.concatenate(images), torch.cat(labels).numpy()


def asked_labels(model: BlockNetwork, settings: Sampling, classes: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """The class (B,) that each image of each batch is to be of: all classes in turn, or ``classes``."""
    asked = torch.tensor(classes or range(model.architecture.num_classes))
    return torch.split(asked[torch.arange(settings.samples) % len(asked)], settings.batch_size)


def sampled_batches(
    model: BlockNetwork,
    process: Process,
    settings: Sampling,
    batches: Sequence[int],
    *,
    seed: int,
    device: torch.device,
    classes: Sequence[int] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The images (B, C, H, W) of these batches of ``asked_labels``, one batch after the other, with their numbers.

    Batch i draws from (seed, "sampling", i) and from nothing else. So two networks of one data set start from the same
    noise: their images can stand side by side and their distances share the sampling noise. And the batches may be
    spread over processes and runs in any way: their images are the same.

    Raises UserError if an image is not finite.
    """
    a, labels = model.architecture, asked_labels(model, settings, classes)
    model = model.to(device).eval()
    with Progress(0, len(batches), settings.batch_size, "batch") as progress:
        for index in batches:
            y, draw = labels[index], generator(seed, "sampling", index)
            noise = torch.randn(len(y), a.in_channels, a.input_size, a.input_size, generator=draw)
            x = process.sample(model, noise.to(device), y.to(device), settings, draw)
            if not x.isfinite().all():
                raise UserError(
                    f"sampling: batch {index} is not finite; the network diverged, train it at a lower rate"
                )
            yield index, to_uint8(decode(x) if decode else x).cpu().numpy()
            progress.update()
