"""ZiCo: the size of gradients relative to how much they vary between batches. Larger is better.

    ZiCo = Σ_layers log Σ_w  mean_b |g_b(w)| / std_b g_b(w)

g_b is the gradient of the training loss of batch b = 1 … D, and w runs over the weights of a linear or convolutional
layer. Source: ZiCo (Li et al. 2023). Where text and code of the authors differ, this follows their code: std is the
population standard deviation of the signed gradient, and weights whose gradient does not vary are left out, as are
layers that have no other weights. D must be 8 or more here. With the published D = 2 the ratio has no finite mean.

``sum`` is the published form. It grows with the number of layers, so it prefers the deeper of two networks for almost
any weights. ``mean`` is an addition of this package: the mean over layers of the log of the mean ratio. It can compare
networks of different depths and layer sizes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.proxies import Zico
from entpruner.process import Process


@dataclass(frozen=True)
class ZicoResult:
    value: float
    per_layer: dict[str, float]
    """The logarithm of each layer. Layers whose gradients do not vary are left out."""


class RunningGradient:
    """Mean of |g|, and mean and sum of squared deviations of g, over the batches so far, for the weights of a layer.

    Welford's update is used because Σg² loses the spread of a gradient that hardly varies to cancellation in float32.
    """

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self.mean_abs, self.mean, self.deviation = (torch.zeros_like(like) for _ in range(3))

    def add(self, gradient: Tensor) -> None:
        self.count += 1
        self.mean_abs += (gradient.abs() - self.mean_abs) / self.count
        delta = gradient - self.mean
        self.mean += delta / self.count
        self.deviation += delta * (gradient - self.mean)

    def ratios(self) -> Tensor:
        """mean|g| / std (n,) float64, of the n weights whose gradients vary by more than rounding errors."""
        std = (self.deviation / self.count).sqrt()
        varies = std > 8 * torch.finfo(std.dtype).eps * self.mean_abs
        return self.mean_abs[varies].double() / std[varies].double()


def zico(
    model: BlockNetwork, process: Process, batches: Iterable[tuple[Tensor, Tensor, Tensor, Tensor]], settings: Zico
) -> ZicoResult:
    """ZiCo over ``settings.batches`` batches (x, noise, t, y) on the device of the model, with a backward pass each.

    All candidates must get the same batches, with stratified t. Otherwise gradients vary because t does. Raises
    UserError if gradients are not finite or no gradient varies, and ValueError for another number of batches.
    """
    *_, (count, statistics) = enumerate(gradient_statistics(model, process, batches), start=1)
    if count != settings.batches:
        raise ValueError(f"zico was given {count} batches, its settings say {settings.batches}")
    return zico_value(statistics, settings.reduction)


def gradient_statistics(
    model: BlockNetwork, process: Process, batches: Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> Iterator[Mapping[str, RunningGradient]]:
    """The statistics of every linear and convolutional layer after one batch, after two, and so on.

    Each batch takes one backward pass. The statistics are updated in place, so read them before the next batch.
    """
    model.eval()
    weights = {
        name: layer.weight
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.requires_grad
    }
    statistics = {name: RunningGradient(weight) for name, weight in weights.items()}
    for x, noise, t, y in batches:
        with torch.enable_grad():
            loss = process.losses(model, x, noise, t, y)["loss"].mean()
        for running, gradient in zip(
            statistics.values(), torch.autograd.grad(loss, list(weights.values())), strict=True
        ):
            running.add(gradient)
        yield statistics


def zico_value(statistics: Mapping[str, RunningGradient], reduction: Literal["sum", "mean"]) -> ZicoResult:
    """ZiCo from the statistics of the layers: the published sum, or the mean, which allows for number and size."""
    per_layer = {}
    for name, running in statistics.items():
        if not running.deviation.isfinite().all():
            raise UserError(f"zico: the gradients of {name} are not finite numbers; check the weights it was given")
        ratios = running.ratios()
        if len(ratios):
            per_layer[name] = math.log(float(ratios.sum() if reduction == "sum" else ratios.mean()))
    if not per_layer:
        raise UserError("zico: no gradient varies between the batches; the network gets no signal, or has one batch")
    total = math.fsum(per_layer.values())
    return ZicoResult(total if reduction == "sum" else total / len(per_layer), per_layer)
