"""A small U-Net, time- and class-conditioned, whose residual blocks can be left out: CED beyond transformers.

In the spirit of DDPM (Ho et al. 2020) and ADM (Dhariwal & Nichol 2021): residual blocks of GroupNorm, SiLU and 3x3
convolutions, conditioned by scale and shift, and an encoder whose tensors the decoder takes up again. Its input and
output are those of the Transformer, so both processes run it unchanged.

It comes apart into blocks, which can go, and joints, which stay:

    embed   3x3 convolution
    encoder, level by level     block ... block                     each hands its output to the decoder
    middle                      block ... block
    decoder, level by level     block ... block                     each takes up the encoder's newest tensor

A block is h + f(h, c) and nothing else. The joint before a block does all that changes shape: it puts the tensor that
an encoder block hands over on the pile, halves or doubles the side, takes a tensor from the pile, and brings the
channels to the block's number by a 1x1 convolution, the shortcut of ADM's blocks. So the skip connections of a pruned
network are whole: where an encoder block is gone, what entered it is handed over in its place; where a decoder block is
gone, the tensor meant for it is still merged by its joint. Ours: in ADM f reads the tensors before they are merged.

Shape letters: B batch, C image channels, H and W image height and width, D condition size; K, h and w are the channels,
height and width at a block's level.
"""

from itertools import pairwise
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.models.arithmetic import Place, places
from entpruner.models.embedders import LabelEmbedder, TimestepEmbedder
from entpruner.models.network import BlockNetwork
from entpruner.params.backbones import UNetArchitecture

GROUPS = 8  # of every GroupNorm


class Hidden(NamedTuple):
    """What goes from block to block: the hidden image, and the encoder's tensors that the decoder has yet to take."""

    h: Tensor  # (B, K, h, w)
    skips: tuple[Tensor, ...]  # the newest last


class Block(nn.Module):
    """The unit that is scored and pruned: two convolutions around a scale and shift by the condition."""

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
    """The way from one block of the unpruned network to the next, whether these are still there or not."""

    def __init__(self, before: Place, after: Place) -> None:
        super().__init__()
        self.hands_over, self.takes_up = before.part == "encoder", after.part == "decoder"
        self.deeper, self.back = after.level > before.level, after.level < before.level
        channels = before.channels + (after.channels if self.takes_up else 0)
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


class UNet(BlockNetwork):
    """Noised image, time and class in; 2C channels out, as the Transformer's."""

    architecture: UNetArchitecture

    def __init__(self, architecture: UNetArchitecture, kept_blocks: tuple[int, ...] | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.kept_blocks = tuple(range(a.depth)) if kept_blocks is None else tuple(kept_blocks)
        condition = 4 * a.channels
        row = places(a)
        self.x_embedder = nn.Conv2d(a.in_channels, row[0].channels, kernel_size=3, padding=1)
        self.t_embedder = TimestepEmbedder(condition)
        self.y_embedder = LabelEmbedder(a.num_classes, condition)
        self.joints = nn.ModuleList(Joint(before, after) for before, after in pairwise(row))
        self.blocks = nn.ModuleList(Block(row[block].channels, condition) for block in self.kept_blocks)
        self.norm_final = nn.GroupNorm(GROUPS, row[-1].channels)
        self.conv_final = nn.Conv2d(row[-1].channels, 2 * a.in_channels, kernel_size=3, padding=1)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Hidden, Tensor]:
        c = self.t_embedder(t) + self.y_embedder(y)  # (B, D)
        return self._join(Hidden(self.x_embedder(x), ()), 0, self.kept_blocks[0]), c

    def onward(self, position: int, state: Hidden) -> Hidden:
        start, *later = self.kept_blocks[position : position + 2]
        return self._join(state, start, later[0] if later else len(self.joints))

    def _join(self, state: Hidden, start: int, stop: int) -> Hidden:
        """From block ``start`` to block ``stop`` of the unpruned network; none between them is left."""
        for joint in range(start, stop):
            state = self.joints[joint](state)
        return state

    def head(self, state: Hidden, c: Tensor) -> Tensor:
        return self.conv_final(F.silu(self.norm_final(state.h)))  # (B, 2C, H, W)

    def hidden(self, state: Hidden) -> Tensor:
        return state.h.flatten(2).mT  # (B, h*w, K)

    def initialize(self, generator: torch.Generator) -> Self:
        """Xavier weights, N(0, 0.02) embeddings; each block's last convolution and the output are zero. Returns self.

        So every block is the identity at first, as in ADM, and as adaLN-zero makes the Transformer's.
        """
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias") or "conv2" in name or name.startswith("conv_final"):
                    nn.init.zeros_(parameter)
                elif "norm" in name:
                    nn.init.ones_(parameter)
                elif name.startswith(("t_embedder", "y_embedder")):
                    nn.init.normal_(parameter, std=0.02, generator=generator)
                else:
                    nn.init.xavier_uniform_(parameter, generator=generator)
        return self
