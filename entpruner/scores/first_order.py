"""First-order importance: the estimate of how much the training loss depends on the weights of each block."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from entpruner.scores.context import Context, Importance


def first_order(context: Context, counts: Callable[[Tensor], Tensor]) -> Importance:
    """Σ |w ∂L/∂w| over the parameters w of each block, where L is the mean training loss of some of the draws.

    ``counts`` says of times (B,) whether their draws count: (B,) bool. The standard error is not estimated.
    """
    model = context.model
    block_of = {weight: position for position, block in enumerate(model.blocks) for weight in block.parameters()}
    blocks = {name: block_of[weight] for name, weight in model.named_parameters() if weight in block_of}
    # These leaves share the network's memory, but its own requires_grad and gradients stay as they are.
    weights = {name: model.get_parameter(name).detach().requires_grad_() for name in blocks}
    gradients = [torch.zeros_like(weight) for weight in weights.values()]
    counted = torch.zeros((), dtype=torch.int64, device=context.device)
    for batch in context.draws():
        chosen = counts(batch.t)
        with torch.enable_grad():
            output = functional_call(model, weights, batch.inputs)
            loss = context.sloped(batch, output)[chosen].sum()
        torch._foreach_add_(gradients, torch.autograd.grad(loss, list(weights.values())))
        counted += chosen.sum()

    value = torch.zeros(len(model.blocks), dtype=torch.float64, device=context.device)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        value[blocks[name]] += (weight.detach() * gradient).abs().sum(dtype=torch.float64)
    return Importance(value / counted, draws=int(counted))
