"""The gradient of every weight for each sample, from one forward and one backward pass of a batch.

The samples of a batch do not influence each other in the network. So the gradient of Σ_i f_i at the output of a layer
holds the gradient of each sample. Together with the inputs of the layer, it gives the weight gradient of sample i as a
sum of outer products over its T positions:

    ∂f_i/∂W = Σ_t d[i, t] a[i, t]ᵀ            a: (B, T, in), d: (B, T, out)

This holds for a linear layer, for a convolution (a: its unfolded patches) and, transposed, for an embedding (a: the
one-hot index). The factors a and d are small, and callers multiply them one layer at a time.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """The input and the output of a layer in a forward pass. Each layer is called once."""

    name: str
    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Within the block, a forward pass of ``model`` appends a Call for every layer with a trainable ``weight``.

    Raises TypeError if ``layers_with_weights`` does.
    """
    calls: list[Call] = []
    with ExitStack() as hooks:
        for name, layer in layers_with_weights(model).items():

            def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                calls.append(Call(name, layer, inputs[0].detach(), output))

            hooks.enter_context(layer.register_forward_hook(record))
        yield calls


def layers_with_weights(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold the trainable parameters with ``weight`` in their names. Biases are left out, as in TE-NAS.

    Raises TypeError for a kind of layer, or for another parameter with ``weight`` in its name, that is not implemented.
    """
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
    """Whether a layer is a convolution without padding, dilation and groups, such as the patch embedding."""
    return isinstance(layer, nn.Conv2d) and (layer.padding, layer.dilation, layer.groups) == ((0, 0), (1, 1), 1)


def gradient_factors(
    calls: list[Call], output: Tensor, probe: Tensor, retain_graph: bool = False
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name of the layer, a and d of the gradients of f_i = Σ probe * output_i, for each call. No ``.grad`` changes.

    ``output`` (B, ...) was computed while ``calls`` was recorded. ``probe`` has the shape of the output of one sample.
    """
    gradients = torch.autograd.grad(
        output, [call.output for call in calls], probe.expand_as(output), retain_graph=retain_graph
    )
    for call, gradient in zip(calls, gradients, strict=True):
        yield call.name, *factors(call.layer, call.input, gradient)


def factors(layer: nn.Module, a: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """The input a and the output gradient d of a layer, in the shapes (B, T, in) and (B, T, out)."""
    if isinstance(layer, nn.Conv2d):
        a = F.unfold(a, layer.kernel_size, stride=layer.stride).mT  # (B, T, C*k*k)
        d = d.flatten(2).mT
    elif isinstance(layer, nn.Embedding):
        a = F.one_hot(a, layer.num_embeddings).to(d)
    return a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
