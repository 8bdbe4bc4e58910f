"""Magnitude: the mean absolute weight of a block. Blocks of small weights go first.

    score_i = mean |w|     over all weights of block i's linear and convolutional layers, without biases

Source: the oldest rule of pruning (Han et al. 2015; for channels Li et al. 2017, and as a baseline Fang et al. 2023,
"Diff-Pruning"). It was made for the weights or channels of one layer; to compare whole blocks by it is our reading.
"""

import torch
from torch import Tensor, nn

from entpruner.scores.context import Context, Importance

COST = 0


def score(context: Context) -> Importance:
    """The mean absolute weight of every block. It sees no image, so it has no sampling error."""
    return Importance(torch.stack([mean_absolute_weight(block) for block in context.model.blocks]), stderr=0.0)


@torch.no_grad()
def mean_absolute_weight(block: nn.Module) -> Tensor:
    """The mean over all weights of a block's linear and convolutional layers, each counted alike: () float64."""
    weights = [layer.weight for layer in block.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    total = torch.stack([weight.abs().sum(dtype=torch.float64) for weight in weights]).sum()
    return total / sum(weight.numel() for weight in weights)
