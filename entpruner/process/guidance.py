"""Classifier-free guidance (Ho & Salimans 2022), as the official DiT and SiT samplers apply it."""

from collections.abc import Callable

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork

Network = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (B, C, H, W), t (B,), y (B,) -> output (B, 2C, H, W)


def guided(model: BlockNetwork, scale: float, guided_channels: int) -> Network:
    """The network guided by ``scale`` on its first ``guided_channels`` image channels, or on all if it has fewer.

    One evaluation of a doubled batch gives the outputs with and without the class. All other channels, such as those
    of the variance, are those of the output with the class. The published images guide three of four latent channels.
    Scale 1 means no guidance.
    """
    if scale == 1:
        return model
    channels = min(guided_channels, model.architecture.in_channels)

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        null = torch.full_like(y, model.null_class)
        output = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]))
        conditional, unconditional = output.chunk(2)  # each (B, 2C, H, W)
        mixed = torch.lerp(unconditional[:, :channels], conditional[:, :channels], scale)
        return torch.cat([mixed, conditional[:, channels:]], dim=1)  # (B, 2C, H, W)

    return network
