"""What the shape of a network comes to: its parameters and multiply-accumulates, counted without building it.

Arithmetic alone, and no torch: the workflow asks for it whenever it starts. "MACs" are multiply-accumulates and "FLOPs"
are twice that. The DiT paper's "Gflops" are GMACs.
"""

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import NamedTuple

from entpruner.params.backbones import Architecture, UNetArchitecture
from entpruner.params.training import Finetuning

TIME_FEATURES = 256  # width of the sinusoidal features of t in every published DiT and SiT

# -------------------------------------------------------------------------------------------------------- transformers


def tokens_of(architecture: Architecture) -> int:
    return (architecture.input_size // architecture.patch_size) ** 2


def mlp_width(architecture: Architecture) -> int:
    return int(architecture.hidden_size * architecture.mlp_ratio)


def transformer_parameters(architecture: Architecture, blocks: int) -> int:
    a, d, mlp = architecture, architecture.hidden_size, mlp_width(architecture)
    patch = a.patch_size**2 * a.in_channels
    embed = linear(patch, d) + linear(TIME_FEATURES, d) + linear(d, d) + (a.num_classes + 1 + tokens_of(a)) * d
    block = linear(d, 3 * d) + linear(d, d) + linear(d, mlp) + linear(mlp, d) + linear(d, 6 * d)
    head = linear(d, 2 * patch) + linear(d, 2 * d)
    return embed + blocks * block + head


def macs(architecture: Architecture, blocks: int | None = None, adapter_width: int | None = None) -> int:
    """Multiply-accumulates of a transformer's forward pass of one image, with ``blocks`` blocks left (default: all).

    Matrix products only, as is customary: linear layers, the patch convolution, attention's QK and AV.
    """
    a = architecture
    d, tokens = a.hidden_size, tokens_of(a)
    patch = a.patch_size**2 * a.in_channels
    block = tokens * (4 * d * d + 2 * d * mlp_width(a))  # qkv, projection, fc1, fc2
    block += attention_macs(a)
    block += 6 * d * d  # adaLN, once an image
    block += 2 * tokens * 2 * d * (adapter_width or 0)  # two adapters: down, up
    embed = tokens * patch * d + TIME_FEATURES * d + d * d
    head = 2 * d * d + tokens * d * 2 * patch
    return embed + (a.depth if blocks is None else blocks) * block + head


def attention_macs(architecture: Architecture) -> int:
    """Those of one block's products without weights, QK and AV."""
    return 2 * tokens_of(architecture) ** 2 * architecture.hidden_size


def lora_macs(architecture: Architecture, rank: int) -> int:
    """Those of the updates beside one block's linear layers: rank times (in + out), a token or (adaLN) an image."""
    d, mlp = architecture.hidden_size, mlp_width(architecture)
    return rank * (tokens_of(architecture) * ((d + 3 * d) + (d + d) + 2 * (d + mlp)) + (d + 6 * d))


def linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer, its bias among them."""
    return (inputs + 1) * outputs


# --------------------------------------------------------------------------------------------------------------- U-Nets


class Place(NamedTuple):
    """Where a block of the unpruned U-Net stands."""

    level: int
    channels: int
    part: str  # encoder, middle or decoder


def places(architecture: UNetArchitecture) -> list[Place]:
    """The blocks of the unpruned U-Net in their order."""
    a = architecture
    levels = [(level, a.channels * factor) for level, factor in enumerate(a.multipliers)]
    encoder = [Place(*level, "encoder") for level in levels for _ in range(a.blocks_per_level)]
    middle = [Place(*levels[-1], "middle")] * a.middle_blocks
    return encoder + middle + [place._replace(part="decoder") for place in reversed(encoder)]


def pixels_of(architecture: UNetArchitecture, level: int) -> int:
    return int((architecture.input_size // 2**level) ** 2)


def unet_parameters(architecture: UNetArchitecture, kept_blocks: Collection[int]) -> int:
    a, row, condition = architecture, places(architecture), 4 * architecture.channels
    total = linear(9 * a.in_channels, row[0].channels) + 2 * row[-1].channels
    total += linear(9 * row[-1].channels, 2 * a.in_channels)
    total += linear(TIME_FEATURES, condition) + linear(condition, condition) + (a.num_classes + 1) * condition
    total += sum(linear(channels, out) for _, channels, out in projections(architecture))
    for block in kept_blocks:
        channels = row[block].channels
        total += 2 * linear(9 * channels, channels) + linear(condition, 2 * channels) + 4 * channels
    return total


def unet_macs(architecture: UNetArchitecture, kept_blocks: Collection[int]) -> int:
    """Multiply-accumulates of a U-Net's forward pass with these blocks left: linear layers and convolutions."""
    a, row, condition = architecture, places(architecture), 4 * architecture.channels
    total = TIME_FEATURES * condition + condition * condition
    total += pixels_of(a, 0) * 9 * a.in_channels * (row[0].channels + 2 * row[-1].channels)
    for block in kept_blocks:
        level, channels, _ = row[block]
        total += 2 * pixels_of(a, level) * 9 * channels**2 + 2 * condition * channels
    return total + sum(pixels_of(a, level) * channels * out for level, channels, out in projections(a))


def projections(architecture: UNetArchitecture) -> Iterator[tuple[int, int, int]]:
    """Level, channels in and channels out of each 1x1 convolution between two blocks."""
    for before, after in pairwise(places(architecture)):
        channels = before.channels + (after.channels if after.part == "decoder" else 0)
        if channels != after.channels:
            yield after.level, channels, after.channels


# ----------------------------------------------------------------------------------------------------- any, in training


def parameters_of(architecture: Architecture | UNetArchitecture, blocks: Collection[int]) -> int:
    """Numbers that a checkpoint of the network with these blocks holds, the fixed position table among them."""
    if isinstance(architecture, UNetArchitecture):
        return unet_parameters(architecture, blocks)
    return transformer_parameters(architecture, len(blocks))


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
