"""The blocks of a transformer of diffusers, and which of them can only go together."""

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from torch import nn

from entpruner.errors import UserError
from entpruner.params.stock import REFUSED

COUNT = re.compile(r"(layers|blocks|depth)$")
"""The end of the names of configuration keys that count blocks."""
AUXILIARY = re.compile(r"refiner|text|vace|caption|face|perceiver")
"""Part of the names of counts of blocks outside the denoiser's main way, which are left alone."""

COPIES = {"DiTTransformer2DModel": "norm1.emb."}
"""Part of the names of weights that every block has a copy of, by class. The head uses the copy of block 0, so this
block can go while all copies are equal: recovery leaves them as they are."""


class Stack(NamedTuple):
    """Blocks in a row, whose number the configuration states."""

    key: str
    """The configuration's key."""
    lists: tuple[str, ...]
    """The names of the lists of this length: several, where a spatial and a temporal block alternate."""


Unit = tuple[str, ...]
"""The names of blocks that can only be removed together, as in ``("transformer_blocks.3",)``."""


def require_known(model: nn.Module) -> None:
    """Raise UserError for a network that is no transformer of diffusers, or of a class that comes out wrong."""
    name = type(model).__name__
    if name in REFUSED:
        raise UserError(f"{name} cannot be pruned: {REFUSED[name]}")
    if "UNet" in name:
        raise UserError(f"{name} cannot be pruned: the stages of a U-Net have skip connections and no count to lower")


def stacks(model: ModelMixin) -> tuple[Stack, ...]:
    """The stacks of a transformer, in the order of their lists.

    Each integer of the configuration that may be a count is raised by one, and the lists that grow are counted by it.
    The networks for that are built without memory for their weights, in milliseconds. Raises UserError if none grows.
    """
    before, config = lengths(model), dict(model.config)
    found = []
    for key, value in config.items():
        if type(value) is int and COUNT.search(key) and not AUXILIARY.search(key):
            after = lengths(skeleton(type(model), config | {key: value + 1}))
            if grown := tuple(name for name in before if after.get(name) == before[name] + 1):
                found.append(Stack(key, grown))
    if not found:
        raise UserError(f"{type(model).__name__}: no count of blocks was found in its configuration")
    return tuple(sorted(found, key=lambda stack: list(before).index(stack.lists[0])))


def skeleton(kind: type[ModelMixin], config: Mapping[str, Any]) -> ModelMixin:
    """The network of a configuration, whose weights have names and shapes and no memory.

    diffusers marks values that nobody gave, and would take the class's own in their place.
    """
    with torch.device("meta"):
        return kind.from_config({key: value for key, value in config.items() if key != "_use_default_values"})


def lengths(model: nn.Module) -> dict[str, int]:
    """The length of each list of blocks that the network holds itself, in the order in which it holds them."""
    lists = {name: module for name, module in model.named_children() if isinstance(module, nn.ModuleList)}
    return {name: len(blocks) for name, blocks in lists.items() if not AUXILIARY.search(name)}


def units(model: ModelMixin) -> tuple[Unit, ...]:
    """What can be removed, in the order of the network. Its numbers in this tuple are the numbers of blocks elsewhere.

    HunyuanDiT's first half sends its states to the second, so that block i goes with block N-1-i. Its middle two stay.
    """
    if type(model).__name__ == "HunyuanDiT2DModel":
        n = len(model.blocks)
        return tuple((f"blocks.{i}", f"blocks.{n - 1 - i}") for i in range(n // 2 - 1))
    depths = lengths(model)
    rows = ([tuple(f"{name}.{i}" for name in lists) for i in range(depths[lists[0]])] for _, lists in stacks(model))
    return tuple(chain.from_iterable(rows))
