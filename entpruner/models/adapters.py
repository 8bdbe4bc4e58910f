"""What fine-tuning puts behind attention and MLP: adapters, which stay in the network, and scales, which are merged.

The names of the weights before them then contain ``sublayer``, as in ``blocks.0.attn.sublayer.qkv.weight``.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer

LAST_LAYERS = {"attn": "proj", "mlp": "fc2"}  # the two sub-layers of a block, and the last linear layer of each

Addition = TypeVar("Addition", bound=nn.Module)


class Adapter(nn.Module):
    """A bottleneck with a residual: x + up(gelu(down(x))). x: (B, T, D). Source: Houlsby et al. 2019, figure 2."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, width)
        self.up = nn.Linear(width, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x), approximate="tanh"))

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw ``down`` on the CPU (Xavier uniform) and set ``up`` to zero: the adapter begins as the identity."""
        weight = torch.empty(self.down.weight.shape)
        self.down.weight.copy_(nn.init.xavier_uniform_(weight, generator=generator))
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)


class Scale(nn.Module):
    """gamma x, with a factor for each channel, which is 1 at first. Source: DiffFit (Xie et al. 2023)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


def add_adapters(model: Transformer, width: int) -> list[Adapter]:
    """Put an adapter behind attention and MLP of every block, in place. Returns the adapters, not yet initialised."""
    return _put_behind(model, "adapter", lambda: Adapter(model.architecture.hidden_size, width))


def add_scales(model: Transformer) -> None:
    """Put a scale behind attention and MLP of every block, in place."""
    _put_behind(model, "scale", lambda: Scale(model.architecture.hidden_size))


@torch.no_grad()
def merge_scales(model: BlockNetwork) -> None:
    """Multiply every scale into the weight and bias of the linear layer before it, and take it out, in place."""
    for block in model.blocks:
        for name, last in LAST_LAYERS.items():
            sublayer, scale = getattr(block, name)
            linear = getattr(sublayer, last)
            linear.weight *= scale.gamma[:, None]
            linear.bias *= scale.gamma
            setattr(block, name, sublayer)


def _put_behind(model: Transformer, name: str, make: Callable[[], Addition]) -> list[Addition]:
    added = []
    for block in model.blocks:
        for sublayer in LAST_LAYERS:
            addition = make().to(model.pos_embed)
            before = getattr(block, sublayer)
            setattr(block, sublayer, nn.Sequential(OrderedDict([("sublayer", before), (name, addition)])))
            added.append(addition)
    return added
