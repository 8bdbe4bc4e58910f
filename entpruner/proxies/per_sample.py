"""The gradient of every weight for each sample, in a network and in candidates that lack some of its blocks.

The samples of a batch do not influence each other in the network. So the gradient of Σ_i f_i at the output of a layer
holds the gradient of each sample. Together with the inputs of the layer, it gives the weight gradient of sample i as a
sum of outer products over its T positions:

    ∂f_i/∂W = Σ_t d[i, t] a[i, t]ᵀ            a: (R, T, in), d: (R, T, out)

This holds for a linear layer, for a convolution (a: its unfolded patches) and, transposed, for an embedding (a: the
one-hot index). The factors a and d are small, and a proxy multiplies them one layer at a time.

The backward pass goes block by block: it hands the factors of a block's layers to the proxies, and forgets them. If the
insides of all blocks take more than ``KEPT`` bytes, the forward pass keeps only the state that enters each block, and
the backward pass computes the inside of a block again. Memory then holds the states of one candidate, and the inside of
one block. Candidates share all this up to the first block that one of them lacks: behind the same blocks they are the
same network.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.models.network import BlockNetwork, PartedNetwork

KEPT = 2**30
"""Bytes. Keeping the insides of all blocks saves a quarter of the time; a small network has room for them."""

Inputs = tuple[Tensor, Tensor, Tensor]
"""The inputs of a network for R samples: x_t (R, C, H, W), t (R,) and y (R,)."""


class LayerGradients(NamedTuple):
    """The factors of the gradients of a layer's weight for R samples."""

    name: str
    layer: nn.Module
    a: Tensor  # (R, T, in)
    d: Tensor  # (R, T, out)


class Proxy(ABC):
    """What is asked of the gradients of R samples: of which scalars f_i they are, and what is made of them."""

    inputs: Inputs

    @abstractmethod
    def at_output(self, output: Tensor) -> Tensor:
        """∂f_i/∂output of each sample, of the network's output: both are (R, 2C, H, W)."""

    @abstractmethod
    def take(self, candidate: int, gradients: LayerGradients) -> None:
        """Use the gradients of one layer of the candidate with this number. They are the same samples every time."""


# ---------------------------------------------------------------------------------------------------- layers and calls


@dataclass(frozen=True)
class Call:
    """The input and the output of a layer in a forward pass. Each layer is called once."""

    name: str
    layer: nn.Module
    input: Tensor
    output: Tensor

    def gradients(self, d: Tensor) -> LayerGradients:
        """The factors of the layer's gradients, of the gradient d at its output."""
        a = self.input
        if isinstance(self.layer, nn.Conv2d):
            a = F.unfold(a, self.layer.kernel_size, stride=self.layer.stride).mT  # (R, T, C*k*k)
            d = d.flatten(2).mT
        elif isinstance(self.layer, nn.Embedding):
            a = F.one_hot(a, self.layer.num_embeddings).to(d)
        return LayerGradients(
            self.name, self.layer, a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
        )


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Within the block, a pass with gradients of ``model`` appends a Call for every layer with a trainable ``weight``.

    Raises TypeError if ``layers_with_weights`` does.
    """
    calls: list[Call] = []
    with ExitStack() as hooks:
        for name, layer in layers_with_weights(model).items():

            def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                if torch.is_grad_enabled():
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


# ------------------------------------------------------------------------------------------------------------ the walk


def take_gradients(model: BlockNetwork, candidates: Sequence[Sequence[int]], *proxies: Proxy) -> None:
    """Hand the gradients of every layer of every candidate to the proxies, whose samples pass the network together.

    A candidate is the network with the blocks at these positions alone. No ``.grad`` changes. Raises TypeError if
    ``layers_with_weights`` does.
    """
    assert isinstance(model, PartedNetwork), "params refuse a vote on other networks"
    model.eval()
    with recorded_calls(model) as calls, untrained(model.blocks):
        _Walk(model, candidates, proxies, calls).embedded()


@contextmanager
def untrained(module: nn.Module) -> Iterator[None]:
    """Within the block, no graph leads to the parameters: the gradients at the layers need none, and it is smaller."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class _Part:
    """A part of the network, computed with a graph of its own, which goes with this object."""

    def __init__(self, calls: list[Call], compute: Callable[..., Any], *inputs: Tensor) -> None:
        self.inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        calls.clear()
        with torch.enable_grad():
            outputs = compute(*self.inputs)
        self.calls, self.outputs = list(calls), outputs if isinstance(outputs, tuple) else (outputs,)

    @property
    def size(self) -> int:
        """The bytes of what its layers take and return."""
        return sum(call.input.nbytes + call.output.nbytes for call in self.calls)

    def backward(self, *at_outputs: Tensor, last: bool) -> tuple[Iterator[LayerGradients], tuple[Tensor, ...]]:
        """The gradients of the layers and those at the inputs, of the gradients at the outputs.

        The ``last`` call frees the graph.
        """
        asked = [call.output for call in self.calls] + self.inputs
        if not asked:  # nothing in front of the blocks is trained
            return iter(()), ()
        paired = [pair for pair in zip(self.outputs, at_outputs, strict=True) if pair[0].requires_grad]
        outputs, given = zip(*paired, strict=True)
        found = torch.autograd.grad(outputs, asked, given, retain_graph=not last)
        layers = (call.gradients(d) for call, d in zip(self.calls, found, strict=False))
        return layers, found[len(self.calls) :]


AtStates = dict[int, tuple[Tensor, ...]]
"""The gradients of each candidate at the tensors between two parts of the network."""


@dataclass(frozen=True)
class _Walk:
    """A walk through the tree of the candidates: behind the blocks that they share, they part."""

    model: PartedNetwork
    candidates: Sequence[Sequence[int]]
    proxies: Sequence[Proxy]
    calls: list[Call]

    def embedded(self) -> None:
        """Go through the whole network."""
        inputs = [torch.cat(parts) for parts in zip(*(proxy.inputs for proxy in self.proxies), strict=True)]
        part = _Part(self.calls, lambda: self.model.embed(*inputs))
        state, c = (output.detach() for output in part.outputs)
        self.back(part, self.behind(0, range(len(self.candidates)), state, c))

    def behind(self, depth: int, group: Sequence[int], state: Tensor, c: Tensor) -> AtStates:
        """The gradients of each candidate of a group at the state behind their first ``depth`` blocks, and at c.

        These blocks are the same in the whole group. state: (R, T, D), c: (R, D).
        """
        found: dict[int, tuple[Tensor, ...]] = {}
        for block, members in self.parted(depth, group).items():
            if block is None:
                part = _Part(self.calls, self.model.head, state, c)
                at_output = self.at_output(part.outputs[0])
                found |= self.back(part, dict.fromkeys(members, (at_output,)))
                continue
            through = partial(self.model.through, block)
            part = _Part(self.calls, through, state, c)
            after, kept = part.outputs[0].detach(), part.size * len(self.model.blocks) <= KEPT
            if not kept:
                del part
            later = self.behind(depth + 1, members, after, c)
            if not kept:
                part = _Part(self.calls, through, state, c)
            entering = self.back(part, {candidate: (at_state,) for candidate, (at_state, _) in later.items()})
            found |= {
                candidate: (at_state, at_c + later[candidate][1]) for candidate, (at_state, at_c) in entering.items()
            }
        return found

    def parted(self, depth: int, group: Sequence[int]) -> dict[int | None, list[int]]:
        """The candidates of a group by the block that they go on with, or None for the head."""
        parted: dict[int | None, list[int]] = {}
        for candidate in group:
            blocks = self.candidates[candidate]
            parted.setdefault(blocks[depth] if depth < len(blocks) else None, []).append(candidate)
        return parted

    def at_output(self, output: Tensor) -> Tensor:
        """The gradients at the output that the proxies ask for, each for its own samples."""
        return torch.cat([proxy.at_output(output[rows]) for proxy, rows in zip(self.proxies, self.rows, strict=True)])

    def back(self, part: _Part, at_outputs: AtStates) -> AtStates:
        """Hand out the gradients of a part's layers for each candidate, and return those at its inputs."""
        found = {}
        for number, (candidate, given) in enumerate(at_outputs.items(), start=1):
            layers, found[candidate] = part.backward(*given, last=number == len(at_outputs))
            for name, layer, a, d in layers:
                for proxy, rows in zip(self.proxies, self.rows, strict=True):
                    proxy.take(candidate, LayerGradients(name, layer, a[rows], d[rows]))
        return found

    @cached_property
    def rows(self) -> list[slice]:
        """The samples of each proxy."""
        ends = list(accumulate((len(proxy.inputs[0]) for proxy in self.proxies), initial=0))
        return [slice(*pair) for pair in pairwise(ends)]
