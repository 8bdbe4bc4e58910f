"""The parameters and multiply-accumulates of a network, counted from its shape without building it.

This module does not import torch, because the workflow uses it whenever it starts. A transformer of diffusers has no
formulas here: it is counted while a pass of it is tried, which does import torch (``models/stock.py``). "MACs" are
multiply-accumulates, and "FLOPs" are twice that. The DiT paper's "Gflops" are GMACs.
"""

from collections.abc import Collection, Iterable
from itertools import chain, pairwise
from typing import Any, NamedTuple

from entpruner.params.backbones import Architecture, Shape, UNetArchitecture
from entpruner.params.stock import StockArchitecture
from entpruner.params.training import Finetuning

TIME_FEATURES = 256  # the number of sinusoidal features of t in every published DiT and SiT


class Layer(NamedTuple):
    """A linear layer with a bias, or a convolution, which is a linear layer at every position of its output."""

    inputs: int
    outputs: int
    positions: int = 1
    """How many times the layer is applied to one image: to each token or pixel, or once."""


Known = Architecture | UNetArchitecture
"""The shapes of networks whose layers there are formulas for."""


def layers_around(shape: Known) -> list[Layer]:
    """All layers of a network outside its blocks."""
    a = shape
    if isinstance(a, Architecture):
        d, tokens, patch = a.hidden_size, tokens_of(a), a.patch_size**2 * a.in_channels
        ends = [Layer(patch, d, tokens), Layer(d, 2 * patch, tokens), Layer(d, 2 * d)]
        return [*ends, Layer(TIME_FEATURES, d), Layer(d, d)]
    row, condition, pixels = places(a), 4 * a.channels, pixels_of(a, 0)
    ends = [Layer(9 * a.in_channels, row[0].channels, pixels), Layer(9 * row[-1].channels, 2 * a.in_channels, pixels)]
    steps = pairwise(row)
    joints = [Layer(entering_channels(*step), step[1].channels, pixels_of(a, step[1].level)) for step in steps]
    projections = [layer for layer in joints if layer.inputs != layer.outputs]
    return [*ends, *projections, Layer(TIME_FEATURES, condition), Layer(condition, condition)]


def block_layers(shape: Known, block: int = 0) -> list[Layer]:
    """All layers of one block. The blocks of a transformer are alike."""
    if isinstance(shape, Architecture):
        d, mlp, tokens = shape.hidden_size, mlp_width(shape), tokens_of(shape)
        attention = [Layer(d, 3 * d, tokens), Layer(d, d, tokens)]
        return [*attention, Layer(d, mlp, tokens), Layer(mlp, d, tokens), Layer(d, 6 * d)]
    level, channels, _ = places(shape)[block]
    convolution = Layer(9 * channels, channels, pixels_of(shape, level))
    return [convolution, convolution, Layer(4 * shape.channels, 2 * channels)]


def parameters_of(shape: Shape, blocks: Collection[int]) -> int:
    """The numbers in a checkpoint of the network with these blocks, with fixed tables of positions or words."""
    if isinstance(shape, StockArchitecture):
        found = counted(shape)
        words = (shape.num_classes + 1) * shape.words * found.text
        return found.around.parameters + len(blocks) * found.block.parameters + words
    layers = chain(layers_around(shape), *(block_layers(shape, block) for block in blocks))
    linear = sum((layer.inputs + 1) * layer.outputs for layer in layers)
    if isinstance(shape, Architecture):
        return linear + (shape.num_classes + 1 + tokens_of(shape)) * shape.hidden_size
    row = places(shape)
    norms = 2 * row[-1].channels + sum(4 * row[block].channels for block in blocks)
    return linear + norms + (shape.num_classes + 1) * 4 * shape.channels


def macs_of(layers: Iterable[Layer]) -> int:
    """The multiply-accumulates of these layers for one image."""
    return sum(layer.inputs * layer.outputs * layer.positions for layer in layers)


def macs_with(shape: Shape, blocks: Collection[int]) -> int:
    """The multiply-accumulates of a forward pass of one image in any network with these blocks left."""
    if isinstance(shape, Architecture):
        return macs(shape, len(blocks))
    if isinstance(shape, UNetArchitecture):
        return unet_macs(shape, blocks)
    found = counted(shape)
    return found.around.macs + len(blocks) * found.block.macs


def counted(shape: StockArchitecture) -> Any:
    """The counts of a transformer of diffusers, of the type ``models.stock.Counts``."""
    from entpruner.models.stock import counts  # loads torch and diffusers

    return counts(shape)


# -------------------------------------------------------------------------------------------------------- transformers


def tokens_of(architecture: Architecture) -> int:
    """The number of patches of one image."""
    return (architecture.input_size // architecture.patch_size) ** 2


def mlp_width(architecture: Architecture) -> int:
    """The width of the hidden layer of a block's MLP."""
    return int(architecture.hidden_size * architecture.mlp_ratio)


def macs(architecture: Architecture, blocks: int | None = None, adapter_width: int | None = None) -> int:
    """The multiply-accumulates of a transformer's forward pass of one image, with ``blocks`` blocks left, or with all.

    As is customary, only matrix products are counted: linear layers, the patch convolution, and attention's QK and AV.
    """
    a, d, tokens, width = architecture, architecture.hidden_size, tokens_of(architecture), adapter_width or 0
    adapters = 2 * [Layer(d, width, tokens), Layer(width, d, tokens)]
    block = macs_of(block_layers(a) + adapters) + attention_macs(a)
    return macs_of(layers_around(a)) + (a.depth if blocks is None else blocks) * block


def attention_macs(architecture: Architecture) -> int:
    """The multiply-accumulates of QK and AV, the products without weights, in one block for one image."""
    return 2 * tokens_of(architecture) ** 2 * architecture.hidden_size


# --------------------------------------------------------------------------------------------------------------- U-Nets


class Place(NamedTuple):
    """The place of a block in the unpruned U-Net."""

    level: int
    channels: int
    part: str  # encoder, middle or decoder


def places(architecture: UNetArchitecture) -> list[Place]:
    """The place of each block of the unpruned U-Net, in the order of the blocks."""
    a = architecture
    levels = [(level, a.channels * factor) for level, factor in enumerate(a.multipliers)]
    encoder = [Place(*level, "encoder") for level in levels for _ in range(a.blocks_per_level)]
    middle = [Place(*levels[-1], "middle")] * a.middle_blocks
    return encoder + middle + [place._replace(part="decoder") for place in reversed(encoder)]


def entering_channels(before: Place, after: Place) -> int:
    """The number of channels between two blocks: a decoder block also gets the tensor of an encoder block."""
    return before.channels + (after.channels if after.part == "decoder" else 0)


def pixels_of(architecture: UNetArchitecture, level: int) -> int:
    """The number of pixels of the hidden image at a level."""
    return int((architecture.input_size // 2**level) ** 2)


def unet_macs(architecture: UNetArchitecture, kept_blocks: Collection[int]) -> int:
    """The multiply-accumulates of a U-Net's forward pass of one image, with these blocks left."""
    return macs_of(chain(layers_around(architecture), *(block_layers(architecture, block) for block in kept_blocks)))


# ------------------------------------------------------------------------------------------------------------ trainings


def training_flops(
    architecture: Shape, kept_blocks: Collection[int], batch_size: int, steps: int, tuning: Finetuning | None = None
) -> int:
    """The FLOPs of a training with these blocks left, by its method, with its teacher's forward passes.

    Networks other than DiT and SiT train all their weights on the data alone.
    """
    if isinstance(architecture, Architecture):
        macs_a_step = step_macs(architecture, len(kept_blocks), tuning)
    else:
        macs_a_step = 3 * macs_with(architecture, kept_blocks)
    return 2 * macs_a_step * batch_size * steps


def step_macs(architecture: Architecture, blocks: int, tuning: Finetuning | None = None) -> int:
    """The multiply-accumulates of a training step for one image. Without ``tuning``, all weights learn from the data.

    A backward pass costs as much as two forward passes, because it computes the gradients of both factors of every
    product. The gradient of a frozen weight is not computed. A teacher adds a forward pass of the unpruned network.
    """
    forward = macs(architecture, blocks)
    if tuning is None:
        return 3 * forward
    added = 0
    if tuning.method == "lora":
        updates = sum((layer.inputs + layer.outputs) * layer.positions for layer in block_layers(architecture))
        added = blocks * tuning.lora.rank * updates
    elif tuning.method == "adapters":
        added = macs(architecture, blocks, tuning.adapter_width) - forward
    frozen = 0 if tuning.method == "full" else forward - blocks * attention_macs(architecture)
    teacher = 0 if tuning.distillation is None else macs(architecture)
    return 3 * (forward + added) - frozen + teacher
