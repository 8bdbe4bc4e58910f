"""What scoring, pruning, training and sampling ask of a network: an embedding, residual blocks in a row, and a head.

Every block is residual: x + f(x, c), so what is left where a block is taken out is the identity, and the state that
entered it goes on. A state is what the network hands from block to block: the tokens of a transformer, or the U-Net's
hidden image with the skip tensors that wait for the decoder.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from entpruner.models.embedders import LabelEmbedder
from entpruner.params.backbones import Architecture, UNetArchitecture

State = Any  # each network's own; never changed in place, so that one may be kept and gone on from later


class BlockNetwork(nn.Module):
    """A network whose blocks can be left out.

    ``kept_blocks`` are the blocks that this network still has, in the numbering of the unpruned one; the blocks
    themselves are renumbered from 0. All of a block's parameters, and no others, are in ``blocks``: they are what its
    removal saves. A subclass is made from ``(architecture, kept_blocks)``.
    """

    architecture: Architecture | UNetArchitecture
    kept_blocks: tuple[int, ...]
    blocks: nn.ModuleList  # of (state, c) -> state
    y_embedder: LabelEmbedder
    checkpointing = False
    """Whether training keeps only what enters each block, and computes its inside again in the backward pass."""

    @property
    def null_class(self) -> int:
        """The label that stands for "no class": the last row of the label table."""
        return self.architecture.num_classes

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x: (B, C, H, W); t: (B,) in the process's own scale; y: (B,) class or null class -> (B, 2C, H, W)."""
        state, c = self.embed(x, t, y)
        for position in range(len(self.blocks)):
            state = self.onward(position, self.through(position, state, c))
        return self.head(state, c)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """What enters the first block, and the condition (B, D) that all blocks share."""
        raise NotImplementedError

    def through(self, position: int, state: State, c: Tensor) -> State:
        """From what enters the block at ``position`` (in ``blocks``) to what leaves it."""
        block = self.blocks[position]
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, state, c, use_reentrant=False, preserve_rng_state=False)  # blocks draw nothing
        return block(state, c)

    def onward(self, position: int, state: State) -> State:
        """From behind the block at ``position`` (in ``blocks``) to the next one or the head; here nothing lies between.

        Given the state before the block instead, the network goes on as it does without that block.
        """
        return state

    def head(self, state: State, c: Tensor) -> Tensor:
        """What comes from behind the last block, as an image: (B, 2C, H, W)."""
        raise NotImplementedError

    def hidden(self, state: State) -> Tensor:
        """A state's hidden vectors, one a token or position: (B, T, D), as tokens are. A block keeps both T and D."""
        return state

    def compile_blocks(self) -> None:
        """Compile the blocks in place; weights and their names stay as they are.

        Equal blocks share what the first is compiled to, however deep the network is. What lies around them is little.
        """
        for block in self.blocks:
            block.compile()

    def initialize(self, generator: torch.Generator) -> Self:
        """Weights to begin training with, which follow from the generator alone. Returns self."""
        raise NotImplementedError

    def initialize_labels(self, generator: torch.Generator) -> None:
        """A new label table, N(0, 0.02), for a network that moves to other classes."""
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02, generator=generator)
