"""Low-rank updates of linear layers. Source: LoRA (Hu et al. 2022), eq. 3: h = W x + (alpha / rank) B A x."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.params.training import Lora


class LoraLinear(nn.Module):
    """A frozen linear layer and its trainable update; ``up`` is zero at first, so that nothing changes yet.

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
        """One trainable linear layer, of weights of its own, that computes the same."""
        linear = copy.deepcopy(self.base).requires_grad_(True)
        linear.weight += self.scale * self.up @ self.down
        return linear


def add_lora(module: nn.Module, settings: Lora, generator: torch.Generator) -> list[nn.Parameter]:
    """Put an update beside every linear layer inside ``module``, in place; returns the new, trainable parameters.

    Other parameters of the module than its linear layers' are left as they are, trainable or not.
    """
    parameters: list[nn.Parameter] = []
    linears = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    for parent, name, linear in linears:
        lora = LoraLinear(linear, settings, generator)
        setattr(parent, name, lora)
        parameters += [lora.down, lora.up]
    return parameters
