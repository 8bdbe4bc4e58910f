"""Every sample's own gradient of every weight, from one forward and one backward of a batch.

Samples don't mix in the network, so the gradient of Σ_i f_i at a layer's output holds every sample's gradient there.
With what entered the layer, it gives sample i's weight gradient as a sum of outer products over its T positions:

    ∂f_i/∂W = Σ_t d[i, t] a[i, t]ᵀ            a: (B, T, in), d: (B, T, out)

for a linear layer, for a convolution (a: its unfolded patches) and, transposed, for an embedding (a: the index,
one-hot). The factors are small; whoever needs a gradient multiplies them out, layer by layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One layer's part in a forward pass; each layer has one."""

    name: str
    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Within the block, forward passes of ``model`` append a Call for every layer with a trainable ``weight``.

    Raises TypeError for such a layer (or other parameter with ``weight`` in its name) of an unknown kind.
    """
    calls: list[Call] = []
    handles = []
    try:
        for name, layer in layers_with_weights(model).items():

            def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                calls.append(Call(name, layer, inputs[0].detach(), output))

            handles.append(layer.register_forward_hook(record))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def layers_with_weights(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold every trainable parameter with ``weight`` in its name. Biases are left out, as in TE-NAS."""
    layers: dict[str, nn.Module] = {}
    for parameter, tensor in model.named_parameters():
        if tensor.requires_grad and "weight" in parameter:
            name, _, own = parameter.rpartition(".")
            layer = model.get_submodule(name)
            if own != "weight" or not (isinstance(layer, nn.Linear | nn.Embedding) or is_plain_convolution(layer)):
                raise TypeError(f"per-sample gradients of {parameter} ({type(layer).__name__}) are not implemented")
            layers[name] = layer
    return layers


def is_plain_convolution(layer: nn.Module) -> bool:
    """Without padding, dilation and groups, as the patch embedding."""
    return isinstance(layer, nn.Conv2d) and (layer.padding, layer.dilation, layer.groups) == ((0, 0), (1, 1), 1)


def gradient_factors(
    calls: list[Call], output: Tensor, probe: Tensor, retain_graph: bool = False
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(layer, a, d) of the gradients of f_i = Σ probe * output_i, for each recorded call. No ``.grad`` is touched.

    output: (B, ...), as computed while ``calls`` was recorded; probe: the shape of one sample's output.
    """
    gradients = torch.autograd.grad(
        output, [call.output for call in calls], probe.expand_as(output), retain_graph=retain_graph
    )
    for call, gradient in zip(calls, gradients, strict=True):
        yield call.name, *factors(call.layer, call.input, gradient)


def factors(layer: nn.Module, a: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's input a and output gradient d as (B, T, in) and (B, T, out)."""
    if isinstance(layer, nn.Conv2d):
        a = F.unfold(a, layer.kernel_size, stride=layer.stride).mT  # (B, T, C*k*k)
        d = d.flatten(2).mT
    elif isinstance(layer, nn.Embedding):
        a = F.one_hot(a, layer.num_embeddings).to(d)
    return a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
