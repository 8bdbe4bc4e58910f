"""The cost of a built network: parameters and measured latency. ``models/arithmetic.py`` needs its shape only."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from entpruner.models.network import BlockNetwork
from entpruner.system.randomness import generator


def parameters(model: torch.nn.Module) -> int:
    """The number of parameters of ``model``. The fixed position table is counted too, as in the papers."""
    return sum(parameter.numel() for parameter in model.parameters())


def cost_key(blocks: int, adapter_width: int | None = None) -> str:
    """The name of a network in a cost file: ``12`` for 12 blocks, ``12+a8`` if they have adapters of width 8."""
    return str(blocks) if adapter_width is None else f"{blocks}+a{adapter_width}"


@dataclass(frozen=True)
class Latency:
    """The time of a network's forward pass, and its speed-up over the reference: medians and quartiles of repeats."""

    batch_size: int
    repeats: int
    seconds_per_image: float
    seconds_per_image_quartiles: tuple[float, float]
    speedup: float
    speedup_quartiles: tuple[float, float]


def latency(
    models: Mapping[str, BlockNetwork], reference: str, batch_size: int, repeats: int, device: torch.device
) -> dict[str, Latency]:
    """Time ``repeats`` forward passes of ``batch_size`` images in each of the named models.

    The models take turns in each repeat, so a machine that becomes slower slows down all of them. The speed-up is the
    median over the repeats of the time of the model ``reference`` divided by the time of the model. The first round is
    a warm-up and is not counted.
    """
    a = next(iter(models.values())).architecture
    draw = generator("latency")
    x = torch.randn(batch_size, a.in_channels, a.input_size, a.input_size, generator=draw).to(device)
    t = torch.rand(batch_size, generator=draw).to(device)
    y = torch.randint(a.num_classes, (batch_size,), generator=draw).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.to(device).eval()
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, model in models.items():
                started = clock(device)
                model(x, t, y)
                seconds[name].append(clock(device) - started)
    times = {name: np.array(values[1:]) / batch_size for name, values in seconds.items()}
    return {
        name: Latency(batch_size, repeats, *spread(own), *spread(times[reference] / own)) for name, own in times.items()
    }


def clock(device: torch.device) -> float:
    """The time in seconds, after the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """The median of the values, and their quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return middle, (low, high)
