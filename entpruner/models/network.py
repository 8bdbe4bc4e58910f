"""What networks share: residual blocks in a row, and in our own transformer and U-Net an embedding and a head.

Every block computes x + f(x, c). A network without this block lets x pass unchanged. A state is what the network hands
from block to block: the tokens of a transformer, or the hidden image of a U-Net with the tensors of its skip
connections.

Shape letters: B batch, C image channels, H and W image height and width, T tokens, D hidden or condition size.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from entpruner.models.embedders import LabelEmbedder, TimestepEmbedder
from entpruner.params.backbones import Shape
from entpruner.system.devices import compiler_problem

log = logging.getLogger(__name__)

State = Any  # no block changes a state in place, so a stored state can be used again later


class Removable(nn.Module):
    """What scoring asks of a network whose blocks may be removed: ``BlockNetwork``, or a transformer of diffusers."""

    kept_blocks: tuple[int, ...]
    """The numbers of the blocks."""
    blocks: nn.ModuleList
    """For each block, the module that holds the weights that go with it."""

    def removals(self, *inputs: Any) -> Iterator[tuple[int | None, Tensor]]:
        """Yield (None, output of the whole network), then (i, output without block i) for every position i."""
        raise NotImplementedError

    def visits(self, *inputs: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the hidden vectors that enter and those that leave each block, (B, T, D) each, in one pass."""
        raise NotImplementedError


class BlockNetwork(Removable):
    """A network that takes a noised image, its time and its class, and returns 2C channels.

    The first C channels are the prediction, and the others are the variance or unused. ``kept_blocks`` are the blocks
    that this network still has, in the numbering of the unpruned network; None stands for all blocks. In ``blocks``
    they are numbered from 0, as the official loaders expect. The parameters in ``blocks``, and no others, go when
    blocks are pruned. A subclass is made from ``(architecture, kept_blocks)``.
    """

    architecture: Shape
    y_embedder: LabelEmbedder
    """What the network knows of each class. The last row stands for "no class"."""
    checkpointing = False
    """Whether training keeps only what enters each block, and computes its inside again in the backward pass."""
    compiled = False
    """Whether the blocks have been compiled."""

    def __init__(self, architecture: Shape, kept: tuple[int, ...] | None) -> None:
        super().__init__()
        self.architecture = architecture
        self.kept_blocks = tuple(range(architecture.depth)) if kept is None else tuple(kept)

    @property
    def null_class(self) -> int:
        """The label that stands for "no class": the last row of the label table."""
        return self.architecture.num_classes

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x: (B, C, H, W); t: (B,) in the scale of the process; y: (B,) class or null class -> (B, 2C, H, W)."""
        raise NotImplementedError

    def initialize(self, generator: torch.Generator) -> Self:
        """Draw the weights that training begins with from the generator alone. Returns self."""
        raise NotImplementedError

    def name_classes(self, names: Sequence[str]) -> Self:
        """Tell the network what its classes are called, if it reads names. Returns self."""
        return self

    def compile_blocks(self) -> None:
        """Compile the blocks in place, where a compiler works. Weights and their names stay as they are.

        Equal blocks share one compiled graph, however deep the network is. Little computation lies outside the blocks.
        Without a compiler, the log says why in one line, and the blocks stay as they are.
        """
        if problem := compiler_problem(next(self.parameters()).device):
            log.warning("compute.compile: going on without it, because torch.compile fails here: %s", problem)
            return
        for block in self.blocks:
            block.compile()
        self.compiled = True


class PartedNetwork(BlockNetwork):
    """A network that can be run part by part: an embedding, its blocks, and a head.

    Each block maps (state, c) to a state.
    """

    zero_at_first: ClassVar[tuple[str, ...]]
    """Training begins with zeros in the parameters whose names contain one of these."""

    def __init__(self, architecture: Shape, kept: tuple[int, ...] | None, x_embedder: nn.Module, width: int) -> None:
        """``width`` is the size D of the condition."""
        super().__init__(architecture, kept)
        self.x_embedder = x_embedder
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(architecture.num_classes, width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        state, c = self.embed(x, t, y)
        for position in range(len(self.blocks)):
            state = self.onward(position, self.through(position, state, c))
        return self.head(state, c)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The state that enters the first block, and the condition (B, D) that all blocks share."""
        return self.first_state(self.x_embedder(x)), self.t_embedder(t) + self.y_embedder(y)

    def first_state(self, embedded: Tensor) -> State:
        raise NotImplementedError

    def through(self, position: int, state: State, c: Tensor) -> State:
        """The state that leaves the block at ``position`` in ``blocks``, of the state that enters it."""
        block = self.blocks[position]
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, state, c, use_reentrant=False, preserve_rng_state=False)  # blocks draw nothing
        return block(state, c)

    def onward(self, position: int, state: State) -> State:
        """The state that enters the next block or the head, of the state behind the block at ``position``.

        With the state before the block instead, the network goes on as it does without this block.
        """
        return state

    def head(self, state: State, c: Tensor) -> Tensor:
        """The output (B, 2C, H, W), of the state behind the last block."""
        raise NotImplementedError

    def hidden(self, state: State) -> Tensor:
        """The hidden vectors of a state, one for each token or pixel: (B, T, D). A block changes neither T nor D."""
        return state

    @torch.no_grad()
    def removals(self, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        """Yield (None, output of the whole network), then (i, output without block i) for every position i.

        If block i is dropped, what enters it stays as it was and goes on in place of what left it. One full pass keeps
        the state before each block, so the removal of block i costs blocks i+1 … L-1 and the head. That makes
        L(L-1)/2 + L block evaluations, where a full pass for each removal would take L(L-1) + L. The numbers are those
        of the pruned network, bit for bit. The states of L blocks are kept in memory: a transformer's are tokens,
        (L, B, T, D). Outputs are (B, 2C, H, W).
        """
        state, c = self.embed(x_t, t, y)
        blocks = list(enumerate(self.conditioned(c)))
        before = []  # what enters each block
        for position, block in blocks:
            before.append(state)
            state = self.onward(position, block(state))
        yield None, self.head(state, c)
        for removed, entering in enumerate(before):
            state = self.onward(removed, entering)
            for position, block in blocks[removed + 1 :]:
                state = self.onward(position, block(state))
            yield removed, self.head(state, c)

    def conditioned(self, c: Tensor) -> list[Callable[[State], State]]:
        """The blocks as functions of the state alone, for passes that use them again and again under one condition."""
        return [partial(block, c=c) for block in self.blocks]

    @torch.no_grad()
    def visits(self, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the hidden vectors that enter and those that leave each block, (B, T, D) each, in one pass."""
        state, c = self.embed(x_t, t, y)
        for position, block in enumerate(self.blocks):
            entering, state = self.hidden(state), block(state, c)
            yield entering, self.hidden(state)
            state = self.onward(position, state)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> Self:
        """Draw the weights that training begins with from the generator alone. Returns self.

        Linear layers and convolutions are Xavier uniform, embeddings are N(0, 0.02). Every block is the identity, and
        the output is zero, because of the layers in ``zero_at_first``.
        """
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.endswith("bias") or any(part in name for part in self.zero_at_first):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                patches = name == "x_embedder.proj.weight"  # DiT draws the convolution over patches as a linear layer
                nn.init.xavier_uniform_(parameter.flatten(1) if patches else parameter, generator=generator)
        return self
