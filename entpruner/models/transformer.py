"""DiT and SiT are one network: a transformer over patches, conditioned by adaLN-zero.

Names, shapes and state-dict keys are those of the published checkpoints (Peebles & Xie 2023, "Scalable Diffusion
Models with Transformers"; Ma et al. 2024, "SiT"), so an official state dict loads with ``strict=True``. What differs
between the two, the meaning of ``t`` and of the output channels, belongs to the process, not to the network.

Shape letters: B batch, C image channels, H and W image height and width, T tokens (H*W / patch_size**2), D hidden size.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.models.embedders import LabelEmbedder, TimestepEmbedder
from entpruner.models.network import BlockNetwork
from entpruner.params.backbones import Architecture


class PatchEmbed(nn.Module):
    """An image as a sequence of linearly embedded patches."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)                                                  # (B, D, H/p, W/p)
        return x.flatten(2).transpose(1, 2)                               # (B, T, D)


class Attention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))          # (B, T, 3, heads, D/heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                              # each (B, heads, T, D/heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))                    # (B, T, D)


class Mlp(nn.Module):
    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, width)
        self.fc2 = nn.Linear(width, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))          # (B, T, D)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: scale and shift every token of a sample alike. x: (B, T, D); shift, scale: (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def layer_norm(hidden_size: int) -> nn.LayerNorm:
    return nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)


class Block(nn.Module):
    """The unit that is scored and pruned: attention and MLP, each gated by adaLN-zero."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = Attention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_msa[:, None] * self.attn(modulate(self.norm1(x), shift_msa, scale_msa))
        x = x + gate_mlp[:, None] * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))
        return x                                                          # (B, T, D)


class FinalLayer(nn.Module):
    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))    # (B, T, p*p*2C)


class Transformer(BlockNetwork):
    """DiT/SiT: noised image, time and class in; 2C channels out (prediction, then variance or an unused half).

    ``kept_blocks`` are the blocks that this network still has, in the numbering of the unpruned one; the blocks
    themselves are renumbered from 0, as the official loaders expect. Without it every block is there.
    """

    architecture: Architecture

    def __init__(self, architecture: Architecture, kept_blocks: tuple[int, ...] | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.kept_blocks = tuple(range(a.depth)) if kept_blocks is None else tuple(kept_blocks)
        self.out_channels = 2 * a.in_channels
        self.x_embedder = PatchEmbed(a.patch_size, a.in_channels, a.hidden_size)
        self.t_embedder = TimestepEmbedder(a.hidden_size)
        self.y_embedder = LabelEmbedder(a.num_classes, a.hidden_size)
        # Never trained, yet a Parameter: the official checkpoints carry it under this key.
        self.pos_embed = nn.Parameter(
            sincos_position_table(a.hidden_size, a.input_size // a.patch_size)[None], requires_grad=False
        )
        self.blocks = nn.ModuleList(Block(a.hidden_size, a.num_heads, a.mlp_ratio) for _ in self.kept_blocks)
        self.final_layer = FinalLayer(a.hidden_size, a.patch_size, self.out_channels)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the first block: the tokens (B, T, D) and the condition (B, D) that all blocks share."""
        tokens = self.x_embedder(x) + self.pos_embed                      # (B, T, D)
        c = self.t_embedder(t) + self.y_embedder(y)                       # (B, D)
        return tokens, c

    def head(self, tokens: Tensor, c: Tensor) -> Tensor:
        """What leaves the last block, back as an image: (B, T, D) -> (B, 2C, H, W)."""
        side, p = self.architecture.input_size // self.architecture.patch_size, self.architecture.patch_size
        x = self.final_layer(tokens, c)                                   # (B, T, p*p*2C)
        x = x.unflatten(1, (side, side)).unflatten(-1, (p, p, -1))        # (B, h, w, p, p, 2C)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)    # (B, 2C, H, W)

    def initialize(self, generator: torch.Generator) -> Self:
        """DiT's initialisation: Xavier linears, N(0, 0.02) embeddings, zero adaLN and zero output. Returns self."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not parameter.requires_grad:
                    continue
                if name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer.linear"):
                    nn.init.zeros_(parameter)
                elif name.startswith(("t_embedder", "y_embedder")):
                    nn.init.normal_(parameter, std=0.02, generator=generator)
                else:
                    nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
        return self


def sincos_position_table(hidden_size: int, side: int) -> Tensor:
    """DiT's fixed 2-D position table for a side*side grid: (side**2, D); columns first, each half [sin, cos]."""
    frequencies = 1 / 10000 ** (torch.arange(hidden_size // 4, dtype=torch.float64) / (hidden_size / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies   # (side, D/4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)                     # (side, D/2)
    columns = axis[None, :, :].expand(side, side, -1)
    rows = axis[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1).float()            # (T, D)
