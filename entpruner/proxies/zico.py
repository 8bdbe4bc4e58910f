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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.proxies import Zico
from entpruner.process import Process
from entpruner.proxies.per_sample import LayerGradients, Proxy, take_gradients

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""x and noise (B, C, H, W), t and y (B,)."""
Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class ZicoResult:
    value: float
    per_layer: dict[str, float]
    """The logarithm of each layer. Layers whose gradients do not vary are left out."""


class LayerRatios(NamedTuple):
    """mean_b |g_b(w)| / std_b g_b(w) of the weights of a layer whose gradients vary by more than rounding errors."""

    total: float
    """Their sum, which is not finite if the gradients are not."""
    weights: int
    """Their number."""


class LossGradients(Proxy):
    """The ratios of every linear and convolutional layer, of the gradients of the training loss of D batches.

    The batches (x, noise, t, y) are of one size, on the device of the model, and should have stratified t; otherwise
    gradients vary because t does. With ``counts``, there are ratios of the first D batches for each of these D.
    """

    def __init__(self, process: Process, batches: Iterable[Batch], counts: Sequence[int] | None = None) -> None:
        given = list(batches)
        self.process, self.batches, self.counts = process, len(given), counts or [len(given)]
        self.drawn = tuple(torch.cat(parts) for parts in zip(*given, strict=True))
        x, noise, t, y = self.drawn
        self.inputs = process.add_noise(x, noise, t), t, y
        self.ratios: dict[tuple[int, int], dict[str, LayerRatios]] = {}
        """Those of each layer, by candidate and D."""

    def at_output(self, output: Tensor) -> Tensor:
        x, noise, t, y = self.drawn
        leaf = output.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.process.losses(lambda *_: leaf, x, noise, t, y)["loss"]  # (D * B,)
        return torch.autograd.grad(losses.sum() * (self.batches / len(losses)), leaf)[0]

    def take(self, candidate: int, gradients: LayerGradients) -> None:
        if isinstance(gradients.layer, nn.Embedding):
            return
        a, d = (part.reshape(self.batches, -1, part.shape[2]) for part in (gradients.a, gradients.d))  # (D, B * T, ...)
        by_batch = d.mT @ a  # (D, out, in)
        for count in self.counts:
            self.ratios.setdefault((candidate, count), {})[gradients.name] = layer_ratios(by_batch[:count])

    def result(self, candidate: int, reduction: Reduction, count: int | None = None) -> ZicoResult:
        """ZiCo of a candidate. Raises UserError if gradients are not finite or no gradient varies."""
        return zico_value(self.ratios[candidate, count or self.batches], reduction)


def layer_ratios(gradients: Tensor) -> LayerRatios:
    """The ratios of a layer, of its gradients (D, ...).

    The spread is that around the mean, because Σg² loses the spread of a gradient that hardly varies to cancellation.
    """
    mean_abs = gradients.abs().mean(0)
    std = (gradients - gradients.mean(0)).square_().mean(0).sqrt_()
    constant = std <= 8 * torch.finfo(std.dtype).eps * mean_abs  # but not where the gradients are not finite
    total = (mean_abs / std).masked_fill_(constant, 0).sum(dtype=torch.float64)
    return LayerRatios(float(total), constant.numel() - int(constant.count_nonzero()))


def zico(model: BlockNetwork, process: Process, batches: Iterable[Batch], settings: Zico) -> ZicoResult:
    """ZiCo of a whole network over ``settings.batches`` batches, as LossGradients describes them.

    Raises UserError if gradients are not finite or no gradient varies, and ValueError for another number of batches.
    """
    losses = LossGradients(process, batches)
    if losses.batches != settings.batches:
        raise ValueError(f"zico was given {losses.batches} batches, its settings say {settings.batches}")
    take_gradients(model, [range(len(model.blocks))], losses)
    return losses.result(0, settings.reduction)


def zico_value(layers: Mapping[str, LayerRatios], reduction: Reduction) -> ZicoResult:
    """ZiCo from the ratios of the layers: the published sum, or the mean, which allows for number and size."""
    per_layer = {}
    for name, ratios in layers.items():
        if not math.isfinite(ratios.total):
            raise UserError(f"zico: the gradients of {name} are not finite numbers; check the weights it was given")
        if ratios.weights:
            per_layer[name] = math.log(ratios.total if reduction == "sum" else ratios.total / ratios.weights)
    if not per_layer:
        raise UserError("zico: no gradient varies between the batches; the network gets no signal, or has one batch")
    total = math.fsum(per_layer.values())
    return ZicoResult(total if reduction == "sum" else total / len(per_layer), per_layer)
