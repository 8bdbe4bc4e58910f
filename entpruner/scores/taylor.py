"""Taylor: the first-order estimate of how much the loss depends on a block's weights. The least first.

    score_i = Σ_w | w ∂L/∂w |     over all parameters of block i, L the mean training loss over the draws

Source: Molchanov et al. 2019, "Importance estimation for neural network pruning", and the baseline of that name in
Diff-Pruning (Fang et al. 2023), for channels; the sum over a whole block is ours. Diff-Pruning's code takes the
absolute value of a channel's sum for ``taylor``, and of each weight for its own score. Here both take it of each
weight, so that ``taylor`` and ``diff_pruning`` differ in their timesteps alone.

At a minimum of the loss its mean gradient is zero: the better the network is trained, the more of the score is sampling
noise of the N draws. Its standard error is not estimated.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from entpruner.scores.context import ScoreContext, Scores, draws, unsigned


def taylor(context: ScoreContext) -> Scores:
    """First-order importance of every block, on the draws of all timesteps."""
    return first_order("taylor", context, lambda t: torch.ones_like(t, dtype=torch.bool))


def first_order(criterion: str, context: ScoreContext, counts: Callable[[Tensor], Tensor]) -> Scores:
    """First-order importance by the mean loss of those draws whose times (B,) ``counts`` approves of, (B,) bool."""
    model = context.model
    # Leaves of our own over the network's memory: its requires_grad and its gradients stay as they are.
    weights = {
        f"blocks.{position}.{name}": weight.detach().requires_grad_()
        for position, block in enumerate(model.blocks)
        for name, weight in block.named_parameters()
    }
    gradients = [torch.zeros_like(weight) for weight in weights.values()]
    counted = torch.zeros((), dtype=torch.int64, device=context.device)

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return functional_call(model, weights, (x, t, y))

    for batch in draws(context):
        approved = counts(batch.t)
        with torch.enable_grad():
            losses = context.process.losses(network, batch.x, batch.noise, batch.t, batch.y)["loss"]
            loss = losses[approved].sum()
        torch._foreach_add_(gradients, torch.autograd.grad(loss, list(weights.values())))
        counted += approved.sum()

    value = torch.zeros(len(model.blocks), dtype=torch.float64, device=context.device)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        value[int(name.split(".")[1])] += (weight.detach() * gradient).abs().sum(dtype=torch.float64)
    return unsigned(criterion, context, value / counted, draws=int(counted))
