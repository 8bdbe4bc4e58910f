"""Time and class as vectors, which condition every network. Shape letters: B batch, D condition size."""

import math

import torch
from torch import Tensor, nn

from entpruner.models.arithmetic import TIME_FEATURES


class TimestepEmbedder(nn.Module):
    """Sinusoidal features of t, and an MLP of two layers."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    @staticmethod
    def features(t: Tensor) -> Tensor:
        """The cosines and then the sines of t times 128 frequencies from 1 down to 1/10000. t: (B,), of any type."""
        half = TIME_FEATURES // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angles = t[:, None].float() * frequencies  # (B, 128)
        return torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 256)

    def forward(self, t: Tensor) -> Tensor:
        dtype = next(self.mlp.parameters()).dtype  # the features are float32, but the weights may have another type
        return self.mlp(self.features(t).to(dtype))  # (B, D)


class LabelEmbedder(nn.Module):
    """One row for each class, and a last row for "no class", which classifier-free guidance needs."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)  # (B, D)
