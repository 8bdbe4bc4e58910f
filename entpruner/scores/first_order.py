"""First-order importance: the estimate of how much the training loss depends on the weights of each block."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from entpruner.scores.context import Importance, ScoreContext, draws, losses


def first_order(context: ScoreContext, counts: Callable[[Tensor], Tensor]) -> Importance:
    """Σ |w ∂L/∂w| over the parameters w of each block, where L is the mean training loss of some of the draws.

    ``counts`` says of times (B,) whether their draws count: (B,) bool. The standard error is not estimated.
    """
    model = context.model
    # These leaves share the network's memory, but its own requires_grad and gradients stay as they are.
    weights = {
        f"blocks.{position}.{name}": weight.detach().requires_grad_()
        for position, block in enumerate(model.blocks)
        for name, weight in block.named_parameters()
    }
    gradients = [torch.zeros_like(weight) for weight in weights.values()]
    counted = torch.zeros((), dtype=torch.int64, device=context.device)
    for batch in draws(context):
        chosen = counts(batch.t)
        with torch.enable_grad():
            output = functional_call(model, weights, (batch.x_t, batch.t, batch.y))
            loss = losses(context, batch, output)[chosen].sum()
        torch._foreach_add_(gradients, torch.autograd.grad(loss, list(weights.values())))
        counted += chosen.sum()

    value = torch.zeros(len(model.blocks), dtype=torch.float64, device=context.device)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        value[int(name.split(".")[1])] += (weight.detach() * gradient).abs().sum(dtype=torch.float64)
    return Importance(value / counted, draws=int(counted))
