"""What a network costs: parameters, multiply-accumulates, measured latency, and the FLOPs of an arm's training.

"MACs" are multiply-accumulates and "FLOPs" are twice that. The DiT paper's "Gflops" are GMACs.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from entpruner.models.transformer import TIME_FEATURES, Transformer
from entpruner.params import Architecture
from entpruner.randomness import generator


def parameters(model: torch.nn.Module) -> int:
    """Numbers that a checkpoint of ``model`` holds, the fixed position table among them, as the papers count."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(architecture: Architecture, blocks: int | None = None) -> int:
    """Multiply-accumulates of one forward pass of one image, with ``blocks`` blocks left (default: all).

    Matrix products only, as is customary: linear layers, the patch convolution, attention's QK and AV.
    """
    a = architecture
    d, tokens = a.hidden_size, (a.input_size // a.patch_size) ** 2
    patch = a.patch_size**2 * a.in_channels
    mlp = int(d * a.mlp_ratio)
    block = tokens * (4 * d * d + 2 * d * mlp)  # qkv, projection, fc1, fc2
    block += 2 * tokens * tokens * d  # QK and AV
    block += 6 * d * d  # adaLN, once an image
    embed = tokens * patch * d + TIME_FEATURES * d + d * d
    head = 2 * d * d + tokens * d * 2 * patch
    return embed + (a.depth if blocks is None else blocks) * block + head


def training_flops(architecture: Architecture, batch_size: int, stages: Iterable[tuple[int, int]]) -> int:
    """FLOPs of an arm's training from its ``(blocks, steps)`` stages; a backward pass costs two forward ones."""
    return sum(3 * 2 * macs(architecture, blocks) * batch_size * steps for blocks, steps in stages)


@dataclass(frozen=True)
class Latency:
    """Forward passes of one network, and how much faster they are than the deepest's; quartiles over the repeats."""

    blocks: int
    batch_size: int
    repeats: int
    seconds_per_image: float
    seconds_per_image_quartiles: tuple[float, float]
    speedup: float
    speedup_quartiles: tuple[float, float]


def latency(
    models: Mapping[int, Transformer], batch_size: int, repeats: int, device: torch.device
) -> dict[int, Latency]:
    """Time ``repeats`` forward passes of ``batch_size`` images in each of the models, given by number of blocks.

    The models take turns within a repeat, so a machine that slows down slows all of them: the speed-up is the median
    of the ratios to the deepest model within the same repeat. The first round is a warm-up and is not counted.
    """
    a = next(iter(models.values())).architecture
    draw = generator("latency")
    x = torch.randn(batch_size, a.in_channels, a.input_size, a.input_size, generator=draw).to(device)
    t = torch.rand(batch_size, generator=draw).to(device)
    y = torch.randint(a.num_classes, (batch_size,), generator=draw).to(device)
    seconds: dict[int, list[float]] = {blocks: [] for blocks in models}
    for model in models.values():
        model.to(device).eval()
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for blocks, model in models.items():
                started = clock(device)
                model(x, t, y)
                seconds[blocks].append(clock(device) - started)
    times = {blocks: np.array(values[1:]) / batch_size for blocks, values in seconds.items()}
    deepest = times[max(times)]
    return {
        blocks: Latency(blocks, batch_size, repeats, *spread(own), *spread(deepest / own))
        for blocks, own in times.items()
    }


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Median and quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return middle, (low, high)
