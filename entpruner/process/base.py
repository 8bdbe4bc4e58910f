"""What training, scoring and sampling ask of a process, and what all processes share."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork
from entpruner.params.sampling import Sampling
from entpruner.process.guidance import Network


class Process(ABC):
    """A way to mix data and noise. Images are x (B, C, H, W), times t (B,) and labels y (B,)."""

    @abstractmethod
    def draw_times(self, n: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        """n uniform times: (n,). Stratified times are one in each of n equal intervals, in random order."""

    @abstractmethod
    def time_fraction(self, t: Tensor) -> Tensor:
        """The distance of t from the data as a number in [0, 1), which grows towards pure noise for every process."""

    @abstractmethod
    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noised images x_t: (B, C, H, W)."""

    def prediction(self, output: Tensor) -> Tensor:
        """The predicted noise or velocity in a network output (B, 2C, H, W): (B, C, H, W)."""
        return output.chunk(2, dim=1)[0]

    @abstractmethod
    def losses(self, model: Network, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The losses of each sample, (B,). A training minimises "loss", and any other keys are its terms."""

    @abstractmethod
    def distillation_loss(self, output: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The distance of each network output at x_t to ``target``, the teacher's output: (B,)."""

    @abstractmethod
    def sample(
        self, model: BlockNetwork, noise: Tensor, y: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Images (B, C, H, W) of the classes y from ``noise``, by the sampler and the guidance in ``sampling``.

        Only the stochastic samplers draw from ``generator`` (CPU). Raises UserError for a number of steps that a
        sampler cannot make.
        """


def uniform(n: int, generator: torch.Generator, stratified: bool) -> Tensor:
    """n draws from [0, 1): (n,) float64. Stratified draws are one in each of n equal intervals, in random order."""
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(n, generator=generator) + u) / n
    return u.clamp(max=1 - 2**-24)  # the largest float32 below 1, because a draw must not be rounded up to 1


def fresh_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, type and device of x, drawn on the CPU."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def image_means(x: Tensor) -> Tensor:
    """The mean over all values of each image: (B, C, H, W) -> (B,)."""
    return x.flatten(1).mean(1)
