"""A small U-Net, conditioned by time and class, whose residual blocks can be pruned. It shows CED beyond transformers.

It follows DDPM (Ho et al. 2020) and ADM (Dhariwal & Nichol 2021): residual blocks of GroupNorm, SiLU and 3x3
convolutions, conditioned by scale and shift, and skip connections from the encoder to the decoder. Its input and output
are those of the Transformer, so both processes run it unchanged.

Blocks can be pruned, and the joints between them always stay:

    embed   3x3 convolution
    encoder, level by level     block ... block                     each saves its output for the decoder
    middle                      block ... block
    decoder, level by level     block ... block                     each takes the tensor that was saved last

A block computes h + f(h, c). The joint before a block does everything that changes a shape: it saves the output of an
encoder block, halves or doubles the side, concatenates a saved tensor, and changes the number of channels by a 1x1
convolution, which is the shortcut of ADM's blocks. A pruned network keeps all skip connections: if an encoder block is
pruned, what entered it is saved instead; if a decoder block is pruned, its joint still takes the saved tensor. One
thing differs from ADM, where f reads the tensors before the 1x1 convolution.

Shape letters: B batch, C image channels, H and W image height and width, D condition size; K, h and w are the channels,
height and width at the level of a block.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.models.arithmetic import Place, entering_channels, places
from entpruner.models.network import PartedNetwork
from entpruner.params.backbones import UNetArchitecture

GROUPS = 8  # the number of groups in every GroupNorm


class Hidden(NamedTuple):
    """The state between two blocks: the hidden image, and the saved tensors that the decoder has not taken yet."""

    h: Tensor  # (B, K, h, w)
    skips: tuple[Tensor, ...]  # the tensor that was saved last is the last one


class Block(nn.Module):
    """Two convolutions and a scale and shift by the condition. Blocks are scored and pruned as a whole."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition, 2 * channels))
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, state: Hidden, c: Tensor) -> Hidden:
        scale, shift = self.modulation(c)[..., None, None].chunk(2, dim=1)  # each (B, K, 1, 1)
        h = self.conv1(F.silu(self.norm1(state.h)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return Hidden(state.h + h, state.skips)  # (B, K, h, w)


class Joint(nn.Module):
    """The step from one block of the unpruned network to the next. It stays when these blocks are pruned."""

    def __init__(self, before: Place, after: Place) -> None:
        super().__init__()
        self.hands_over, self.takes_up = before.part == "encoder", after.part == "decoder"
        self.deeper, self.back = after.level > before.level, after.level < before.level
        channels = entering_channels(before, after)
        self.proj = nn.Conv2d(channels, after.channels, kernel_size=1) if channels != after.channels else nn.Identity()

    def forward(self, state: Hidden) -> Hidden:
        h, skips = state
        if self.hands_over:
            skips = (*skips, h)
        if self.deeper:
            h = F.avg_pool2d(h, 2)
        if self.back:
            h = F.interpolate(h, scale_factor=2.0)  # each value four times
        if self.takes_up:
            h, skips = torch.cat([h, skips[-1]], dim=1), skips[:-1]
        return Hidden(self.proj(h), skips)


class UNet(PartedNetwork):
    """Its initial weights make every block the identity, as in ADM."""

    architecture: UNetArchitecture
    zero_at_first = ("conv2", "conv_final")

    def __init__(self, architecture: UNetArchitecture, kept_blocks: tuple[int, ...] | None = None) -> None:
        a, condition, row = architecture, 4 * architecture.channels, places(architecture)
        super().__init__(a, kept_blocks, nn.Conv2d(a.in_channels, row[0].channels, kernel_size=3, padding=1), condition)
        self.joints = nn.ModuleList(Joint(before, after) for before, after in pairwise(row))
        self.blocks = nn.ModuleList(Block(row[block].channels, condition) for block in self.kept_blocks)
        self.norm_final = nn.GroupNorm(GROUPS, row[-1].channels)
        self.conv_final = nn.Conv2d(row[-1].channels, 2 * a.in_channels, kernel_size=3, padding=1)

    def first_state(self, embedded: Tensor) -> Hidden:
        return self._join(Hidden(embedded, ()), 0, self.kept_blocks[0])

    def onward(self, position: int, state: Hidden) -> Hidden:
        start, *later = self.kept_blocks[position : position + 2]
        return self._join(state, start, later[0] if later else len(self.joints))

    def _join(self, state: Hidden, start: int, stop: int) -> Hidden:
        """The state behind the joints between the blocks ``start`` and ``stop`` of the unpruned network."""
        for joint in range(start, stop):
            state = self.joints[joint](state)
        return state

    def head(self, state: Hidden, c: Tensor) -> Tensor:
        return self.conv_final(F.silu(self.norm_final(state.h)))  # (B, 2C, H, W)

    def hidden(self, state: Hidden) -> Tensor:
        return state.h.flatten(2).mT  # (B, h*w, K)
