"""Uniform times, plain or stratified."""

import torch
from torch import Tensor


def uniform(n: int, generator: torch.Generator, stratified: bool) -> Tensor:
    """n draws from [0, 1): (n,) float64. Stratified: one in each of n equal strata, in random order."""
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(n, generator=generator) + u) / n
    return u.clamp(max=1 - 2**-24)  # the largest float32 below 1: rounding must not reach the end of the axis
