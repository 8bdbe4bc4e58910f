"""The optimizers: what each keeps of a weight between two steps, and how it moves the weights.

- ``adamw``: AdamW on every weight, as DiT and SiT have it.
- ``sgd``: SGD with momentum on every weight. Its weight decay is a part of the gradient.
- ``muon``: Muon (Jordan et al. 2024) on the matrices of the blocks, and AdamW on all else, as its authors advise. Its
  steps are as long as AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so both have one learning rate.

AdamW and SGD are PyTorch's functions, because the imports of its Optimizer classes take seconds. Muon is such a class.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from entpruner.params.training import OptimizerName, Training

Moments = dict[str, Tensor]
"""What an optimizer keeps of a weight: ``step`` (0-d), ``exp_avg`` and ``exp_avg_sq`` (of the shape of the weight) for
AdamW, and ``momentum_buffer`` (of that shape) for the others."""


def first_moments(optimizer: OptimizerName, name: str, weight: Tensor) -> Moments:
    """What an optimizer keeps of the weight of this name before its first step: zeros."""
    of_block = name.startswith("blocks.") and weight.dim() == 2
    if optimizer == "adamw" or (optimizer == "muon" and not of_block):
        return {"step": torch.zeros(()), **{kind: torch.zeros_like(weight) for kind in ("exp_avg", "exp_avg_sq")}}
    return {"momentum_buffer": torch.zeros_like(weight)}


def stepper(weights: Sequence[Tensor], moments: Sequence[Moments], settings: Training) -> Callable[[float], None]:
    """A function that moves the weights by one step, with a learning rate and with the gradients that lie in them."""
    both = list(zip(weights, moments, strict=True))
    by_adamw = [(weight, kept) for weight, kept in both if "exp_avg" in kept]
    others = [(weight, kept["momentum_buffer"]) for weight, kept in both if "momentum_buffer" in kept]
    if not others:
        return lambda lr: adamw_step(by_adamw, settings, lr)
    if settings.optimizer == "sgd":
        return lambda lr: sgd_step(others, settings, lr)
    assert settings.momentum is not None
    muon = torch.optim.Muon(
        [weight for weight, _ in others],
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    for weight, buffer in others:
        muon.state[weight]["momentum_buffer"] = buffer

    def step(lr: float) -> None:
        muon.param_groups[0]["lr"] = lr
        muon.step()  # type: ignore[no-untyped-call]
        adamw_step(by_adamw, settings, lr)

    return step


@torch.no_grad()
def adamw_step(moved: Sequence[tuple[Tensor, Moments]], settings: Training, lr: float) -> None:
    """One step of PyTorch's fused AdamW."""
    adamw(
        [weight for weight, _ in moved],
        [weight.grad for weight, _ in moved if weight.grad is not None],
        [kept["exp_avg"] for _, kept in moved],
        [kept["exp_avg_sq"] for _, kept in moved],
        [],
        [kept["step"] for _, kept in moved],
        fused=True,
        amsgrad=False,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        lr=lr,
        weight_decay=settings.weight_decay,
        eps=1e-8,
        maximize=False,
    )


@torch.no_grad()
def sgd_step(moved: Sequence[tuple[Tensor, Tensor]], settings: Training, lr: float) -> None:
    """One step of PyTorch's SGD with momentum."""
    assert settings.momentum is not None
    sgd(
        [weight for weight, _ in moved],
        [weight.grad for weight, _ in moved if weight.grad is not None],
        [buffer for _, buffer in moved],
        momentum=settings.momentum,
        lr=lr,
        weight_decay=settings.weight_decay,
        dampening=0,
        nesterov=False,
        maximize=False,
    )
