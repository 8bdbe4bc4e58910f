"""DiT and SiT are one network: a transformer over patches, conditioned by adaLN-zero.

Names, shapes and state-dict keys are those of the published checkpoints (Peebles & Xie 2023, "Scalable Diffusion
Models with Transformers"; Ma et al. 2024, "SiT"), so an official state dict loads with ``strict=True``. DiT and SiT
differ in the meaning of ``t`` and of the output channels, which the modules in ``process`` define.

Shape letters: B batch, C image channels, H and W image height and width, T tokens (H*W / patch_size**2), D hidden size.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entpruner.models.network import PartedNetwork
from entpruner.params.backbones import Architecture

FEW_TOKENS = 4
"""Compiled blocks compute the attention of at most this many tokens by sums. `make bench` says what that saves."""


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
        if torch.compiler.is_compiling() and x.is_cpu and x.shape[1] <= FEW_TOKENS:
            return self.proj(attention_by_sums(*qkv.unbind(2)).flatten(2))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                              # each (B, heads, T, D/heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))                    # (B, T, D)


def attention_by_sums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as products and sums, which a compiler makes one loop of. All are (B, T, heads, D/heads)."""
    scores = (q[:, :, None] * k[:, None]).sum(-1) * q.shape[-1] ** -0.5   # (B, T, T, heads)
    weights = scores.softmax(2)                                           # over the tokens of k
    return (weights[..., None] * v[:, None]).sum(2)                       # (B, T, heads, D/heads)


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
    """Attention and MLP, each gated by adaLN-zero. Blocks are scored and pruned as a whole."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = Attention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.modulated(x, self.adaLN_modulation(c))

    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x: (B, T, D), modulation: (B, 6D)."""
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, dim=1)
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


class Transformer(PartedNetwork):
    """DiT or SiT. Its initial weights are those of DiT."""

    architecture: Architecture
    zero_at_first = ("adaLN_modulation", "final_layer.linear")

    def __init__(self, architecture: Architecture, kept_blocks: tuple[int, ...] | None = None) -> None:
        a = architecture
        super().__init__(a, kept_blocks, PatchEmbed(a.patch_size, a.in_channels, a.hidden_size), a.hidden_size)
        # The position table is never trained. It is a Parameter because the official checkpoints hold it.
        table = sincos_position_table(a.hidden_size, a.input_size // a.patch_size)
        self.pos_embed = nn.Parameter(table[None], requires_grad=False)
        self.blocks = nn.ModuleList(Block(a.hidden_size, a.num_heads, a.mlp_ratio) for _ in self.kept_blocks)
        self.final_layer = FinalLayer(a.hidden_size, a.patch_size, 2 * a.in_channels)

    def first_state(self, embedded: Tensor) -> Tensor:
        return embedded + self.pos_embed                                  # (B, T, D)

    def conditioned(self, c: Tensor) -> list[Callable[[Tensor], Tensor]]:
        blocks = cast(Iterable[Block], self.blocks)
        return [partial(block.modulated, modulation=block.adaLN_modulation(c)) for block in blocks]

    def head(self, tokens: Tensor, c: Tensor) -> Tensor:
        side, p = self.architecture.input_size // self.architecture.patch_size, self.architecture.patch_size
        x = self.final_layer(tokens, c)                                   # (B, T, p*p*2C)
        x = x.unflatten(1, (side, side)).unflatten(-1, (p, p, -1))        # (B, h, w, p, p, 2C)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)    # (B, 2C, H, W)


def sincos_position_table(hidden_size: int, side: int) -> Tensor:
    """DiT's fixed table of 2-D positions on a side*side grid: (side**2, D). The first D/2 columns are the sines and
    cosines of a token's column, the others those of its row.
    """
    frequencies = 1 / 10000 ** (torch.arange(hidden_size // 4, dtype=torch.float64) / (hidden_size / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies   # (side, D/4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)                     # (side, D/2)
    columns = axis[None, :, :].expand(side, side, -1)
    rows = axis[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1).float()            # (T, D)
