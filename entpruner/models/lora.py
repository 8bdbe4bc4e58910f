"""Low-rank updates of linear layers. Source: LoRA (Hu et al. 2022), eq. 3: h = W x + (alpha / rank) B A x."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.params.lora import Lora


class LoraLinear(nn.Module):
    """A frozen linear layer and its trainable update. ``up`` is zero at first, so the output begins unchanged.

    ``down`` is drawn on the CPU as in the authors' code, uniform within ±1/sqrt(in).
    """

    def __init__(self, base: nn.Linear, settings: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = settings.alpha / settings.rank
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(settings.rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(base.weight))  # A: (rank, in)
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, settings.rank))  # B: (out, rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A trainable linear layer that computes the same, with a copy of the weights."""
        linear = copy.deepcopy(self.base).requires_grad_(True)
        linear.weight += self.scale * self.up @ self.down
        return linear


def add_lora(module: nn.Module, settings: Lora, generator: torch.Generator) -> list[nn.Parameter]:
    """Put an update beside every linear layer inside ``module``, in place. Returns the new parameters.

    Parameters outside linear layers stay trainable or frozen.
    """
    parameters: list[nn.Parameter] = []
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear):
            lora = LoraLinear(layer, settings, generator)
            module.set_submodule(name, lora)
            parameters += [lora.down, lora.up]
    return parameters


def merge_lora(module: nn.Module) -> None:
    """Add every update to the weights of its linear layer, and take it out, in place."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LoraLinear):
            module.set_submodule(name, layer.merged())
