"""What a network costs: parameters, multiply-accumulates, measured latency, and the FLOPs of an arm's training.

"MACs" are multiply-accumulates and "FLOPs" are twice that. The DiT paper's "Gflops" are GMACs.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from entpruner.models.embedders import TIME_FEATURES
from entpruner.models.network import BlockNetwork
from entpruner.models.unet import places
from entpruner.params import Architecture, Finetuning, UNetArchitecture
from entpruner.randomness import generator


def parameters(model: torch.nn.Module) -> int:
    """Numbers that a checkpoint of ``model`` holds, the fixed position table among them, as the papers count."""
    return sum(parameter.numel() for parameter in model.parameters())


def cost_key(blocks: int, adapter_width: int | None = None) -> str:
    """A network's name in a cost file: ``12``, or with adapters of width 8 ``12+a8``."""
    return str(blocks) if adapter_width is None else f"{blocks}+a{adapter_width}"


def macs(architecture: Architecture, blocks: int | None = None, adapter_width: int | None = None) -> int:
    """Multiply-accumulates of a transformer's forward pass of one image, with ``blocks`` blocks left (default: all).

    Matrix products only, as is customary: linear layers, the patch convolution, attention's QK and AV.
    """
    a = architecture
    d, tokens = a.hidden_size, (a.input_size // a.patch_size) ** 2
    patch = a.patch_size**2 * a.in_channels
    mlp = int(d * a.mlp_ratio)
    block = tokens * (4 * d * d + 2 * d * mlp)  # qkv, projection, fc1, fc2
    block += attention_macs(a)
    block += 6 * d * d  # adaLN, once an image
    block += 2 * tokens * 2 * d * (adapter_width or 0)  # two adapters: down, up
    embed = tokens * patch * d + TIME_FEATURES * d + d * d
    head = 2 * d * d + tokens * d * 2 * patch
    return embed + (a.depth if blocks is None else blocks) * block + head


def attention_macs(architecture: Architecture) -> int:
    """Those of one block's products without weights, QK and AV."""
    tokens = (architecture.input_size // architecture.patch_size) ** 2
    return 2 * tokens * tokens * architecture.hidden_size


def lora_macs(architecture: Architecture, rank: int) -> int:
    """Those of the updates beside one block's linear layers: rank times (in + out), a token or (adaLN) an image."""
    a = architecture
    d, mlp, tokens = a.hidden_size, int(a.hidden_size * a.mlp_ratio), (a.input_size // a.patch_size) ** 2
    return rank * (tokens * ((d + 3 * d) + (d + d) + 2 * (d + mlp)) + (d + 6 * d))


def unet_macs(architecture: UNetArchitecture, kept_blocks: Collection[int]) -> int:
    """Those of a U-Net's forward pass with these blocks left: linear layers and convolutions."""
    a, row = architecture, places(architecture)
    condition = 4 * a.channels

    def conv(level: int, channels: int, out: int, kernel: int) -> int:
        return (a.input_size // 2**level) ** 2 * kernel**2 * channels * out

    total = TIME_FEATURES * condition + condition * condition
    total += conv(0, a.in_channels, row[0].channels, 3) + conv(0, row[-1].channels, 2 * a.in_channels, 3)
    for block in kept_blocks:
        level, channels, _ = row[block]
        total += 2 * conv(level, channels, channels, 3) + 2 * condition * channels
    for before, after in pairwise(row):
        channels = before.channels + (after.channels if after.part == "decoder" else 0)
        total += conv(after.level, channels, after.channels, 1) if channels != after.channels else 0
    return total


def training_flops(
    architecture: Architecture | UNetArchitecture,
    kept_blocks: Collection[int],
    batch_size: int,
    steps: int,
    tuning: Finetuning | None = None,
) -> int:
    """FLOPs of a training with these blocks left, by its method, with its teacher's forward passes.

    U-Nets train all weights, on the data alone.
    """
    if isinstance(architecture, UNetArchitecture):
        macs_a_step = 3 * unet_macs(architecture, kept_blocks)
    else:
        macs_a_step = step_macs(architecture, len(kept_blocks), tuning)
    return 2 * macs_a_step * batch_size * steps


def step_macs(architecture: Architecture, blocks: int, tuning: Finetuning | None = None) -> int:
    """Multiply-accumulates of a training step, an image; ``tuning`` None is training of every weight on the data alone.

    A backward pass costs two forward ones: the gradient of a product's both factors. Where a weight is frozen its half
    is not computed. A teacher adds a forward pass of the unpruned network.
    """
    forward = macs(architecture, blocks)
    if tuning is None:
        return 3 * forward
    added = 0
    if tuning.method == "lora":
        added = blocks * lora_macs(architecture, tuning.lora.rank)
    elif tuning.method == "adapters":
        added = macs(architecture, blocks, tuning.adapter_width) - forward
    frozen = 0 if tuning.method == "full" else forward - blocks * attention_macs(architecture)
    teacher = 0 if tuning.distillation is None else macs(architecture)
    return 3 * (forward + added) - frozen + teacher


@dataclass(frozen=True)
class Latency:
    """Forward passes of one network, and how much faster they are than the reference's; quartiles over the repeats."""

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

    The models take turns within a repeat, so a machine that slows down slows all of them: the speed-up is the median
    of the ratios to the model ``reference`` within the same repeat. The first round is a warm-up and is not counted.
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
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Median and quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return middle, (low, high)
