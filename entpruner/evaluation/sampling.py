"""Images from a trained network. All arms of a seed get the same noise and the same labels."""

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
    """Images (n, C, H, W) and the classes (n,) that were asked for, where n is ``settings.samples``.

    The classes take turns. They are all classes of the model, or ``classes``. If the network works on latents,
    ``decode`` makes images of them. Raises UserError if an image is not finite.
    """
    labels = asked_labels(model, settings, classes)
    numbered = range(len(labels))
    batches = sampled_batches(model, process, settings, labels, numbered, seed=seed, device=device, decode=decode)
    return np.concatenate([images for _, images in batches]), torch.cat(labels).numpy()


def asked_labels(model: BlockNetwork, settings: Sampling, classes: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """The classes (B,) of each batch to sample. All classes of the model, or ``classes``, take turns."""
    asked = torch.tensor(classes or range(model.architecture.num_classes))
    return torch.split(asked[torch.arange(settings.samples) % len(asked)], settings.batch_size)


def sampled_batches(
    model: BlockNetwork,
    process: Process,
    settings: Sampling,
    labels: Sequence[Tensor],
    batches: Sequence[int],
    *,
    seed: int,
    device: torch.device,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The numbers and the images (B, C, H, W) of these batches, one after the other; ``labels`` are of all batches.

    Batch i draws from (seed, "sampling", i) and from nothing else. So two networks of a data set start from the same
    noise, and their images can be compared one by one. The images do not depend on the process or the run that samples
    a batch.

    Raises UserError if an image is not finite.
    """
    a, model = model.architecture, model.to(device).eval()
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
