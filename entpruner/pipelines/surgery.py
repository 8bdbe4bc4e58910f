"""Taking blocks out of a transformer of diffusers in place, so that its class and its loader stay the stock ones."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from entpruner.errors import UserError
from entpruner.pipelines.blocks import Unit, skeleton, stacks

Weights = dict[str, Tensor]


@torch.no_grad()
def remove(model: ModelMixin, gone: Collection[Unit]) -> None:
    """Delete blocks, lower the counts in the configuration, and make of the rest what the stock loader expects.

    Nothing is copied: what stays keeps its memory, its type and its hooks. Raises UserError if a list would be empty,
    if a rule of the class forbids the removal, or if the network is not the one that its new configuration describes.
    """
    names = {name for unit in gone for name in unit}
    found = stacks(model)
    kept = {name: kept_positions(model, name, names) for stack in found for name in stack.lists}
    config = {stack.key: model.config[stack.key] - removed(model, kept, stack.lists[0]) for stack in found}
    config |= {key: rule(model, kept) for key, rule in RENUMBERED.items() if model.config.get(key)}
    if any("transformer_blocks.0" in unit for unit in gone) and fixed(model):
        raise UserError(
            "DiTTransformer2DModel cannot lose block 0: its head uses the embedder of this block, and others differ"
        )
    for name, positions in kept.items():
        blocks = getattr(model, name)
        setattr(model, name, nn.ModuleList(blocks[position] for position in positions))
    model.register_to_config(**config)
    expected = skeleton(type(model), model.config)
    if convert := LAST_BLOCK.get(type(model).__name__):
        as_last_block(model.transformer_blocks, expected.transformer_blocks, convert)
    require_equal_shapes(model, expected)


def kept_positions(model: ModelMixin, name: str, gone: set[str]) -> list[int]:
    """The positions in the list ``name`` of the blocks that stay."""
    positions = [i for i in range(len(getattr(model, name))) if f"{name}.{i}" not in gone]
    if not positions:
        raise UserError(f"all blocks of {name} would go; keep at least one")
    return positions


def removed(model: ModelMixin, kept: dict[str, list[int]], name: str) -> int:
    return len(getattr(model, name)) - len(kept[name])


def empties(model: ModelMixin, gone: Collection[Unit]) -> bool:
    """Whether a list of blocks would be empty."""
    counted = Counter(name.rpartition(".")[0] for unit in gone for name in unit)
    return any(count >= len(getattr(model, name)) for name, count in counted.items())


def require_equal_shapes(model: ModelMixin, expected: ModelMixin) -> None:
    """Raise UserError if weights differ in name or shape. The stock loader would not: it is not strict."""
    found, wanted = ({name: tensor.shape for name, tensor in m.state_dict().items()} for m in (model, expected))
    if found != wanted:
        name = next(iter(sorted(set(found.items()) ^ set(wanted.items()))))[0]
        raise UserError(
            f"{type(model).__name__} cannot be pruned so: the network of the lower count differs at {name}: "
            f"{wanted.get(name)} is expected, {found.get(name)} is left"
        )


# ------------------------------------------------------------------------------------------------ rules of some classes


def dual_attention(model: ModelMixin, kept: dict[str, list[int]]) -> list[int]:
    """SD3.5: the numbers of blocks with a second attention, after renumbering."""
    dual = model.config.dual_attention_layers
    return [new for new, old in enumerate(kept["transformer_blocks"]) if old in dual]


def leading_blocks(model: ModelMixin, kept: dict[str, list[int]]) -> int:
    """EasyAnimate: how many blocks at the beginning have weights of their own for the text."""
    return sum(position < model.config.mmdit_layers for position in kept["transformer_blocks"])


RENUMBERED: dict[str, Callable[[ModelMixin, dict[str, list[int]]], Any]] = {
    "dual_attention_layers": dual_attention,
    "mmdit_layers": leading_blocks,
}
"""Configuration keys that speak of blocks by number."""


def fixed(model: ModelMixin) -> set[int]:
    """The numbers of blocks that must stay: DiT's block 0, whose embedder of time and class the head uses, too.

    Every block has a copy of this embedder. While the copies are equal, as in converted checkpoints, block 0 may go.
    """
    if type(model).__name__ != "DiTTransformer2DModel":
        return set()
    first, *others = (dict(block.norm1.emb.named_parameters()) for block in model.transformer_blocks)
    equal = all(torch.equal(first[name], other[name]) for other in others for name in first)
    return set() if equal else {0}


def sd3_norm(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The text's modulation in a last block: the first two of shift, scale, gate, shift, scale and gate, swapped."""
    shift, scale = weight.chunk(6)[:2]
    yield name, torch.cat([scale, shift])


def mochi_norm(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The text's modulation in a last block: the first of scale, gate, scale and gate."""
    yield name.replace(".linear.", ".linear_1."), weight.chunk(4)[0]


LAST_BLOCK: dict[str, Callable[[str, Tensor], Iterator[tuple[str, Tensor]]]] = {
    "SD3Transformer2DModel": sd3_norm,
    "MochiTransformer3DModel": mochi_norm,
}
"""Classes whose last block has no text output, and so fewer weights, with the conversion of its text norm."""


def as_last_block(blocks: nn.ModuleList, expected: nn.ModuleList, convert: Callable[..., Any]) -> None:
    """Make the last block one without a text output. Its image output stays the same, bit for bit."""
    weights, last = blocks[-1].state_dict(), expected[-1]
    wanted = last.state_dict()
    if weights.keys() == wanted.keys():
        return  # the last block has stayed
    for name in [name for name in weights if name.startswith("norm1_context.")]:
        weights |= dict(convert(name, weights[name]))
    last.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    last.train(blocks[-1].training)
    blocks[-1] = last
