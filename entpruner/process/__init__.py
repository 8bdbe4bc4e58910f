"""How noise meets data: Gaussian diffusion (DiT) and flow matching (SiT) behind one interface."""

from typing import Protocol

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork
from entpruner.params.backbones import Diffusion, ProcessSettings
from entpruner.params.sampling import Sampling
from entpruner.process.diffusion import GaussianDiffusion
from entpruner.process.flow import FlowMatching
from entpruner.process.guidance import Network


class Process(Protocol):
    """What training, scoring and sampling ask of a process. Images are x (B, C, H, W), times t and labels y (B,)."""

    def draw_times(self, n: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        """n times, uniform on the process's axis: (n,). Stratified: one in each of n equal strata, in random order."""
        ...

    def time_fraction(self, t: Tensor) -> Tensor:
        """How far t lies from the data towards pure noise, in [0, 1): the same direction for every process."""
        ...

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noised images x_t: (B, C, H, W)."""
        ...

    def prediction(self, output: Tensor) -> Tensor:
        """The predicted noise or velocity in a network output (B, 2C, H, W): (B, C, H, W)."""
        ...

    def losses(self, model: Network, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Loss of each sample, (B,): "loss" is what is trained; any other keys are its terms."""
        ...

    def distillation_loss(self, output: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The loss with a teacher in the place of the truth, (B,); output and target are network outputs at x_t."""
        ...

    def sample(
        self, model: BlockNetwork, noise: Tensor, y: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Images of the classes y from ``noise`` (B, C, H, W), by this process's sampler and guidance in ``sampling``.

        ``generator`` (CPU) is drawn from by the stochastic samplers only.
        """
        ...


def make_process(settings: ProcessSettings) -> Process:
    return GaussianDiffusion(settings) if isinstance(settings, Diffusion) else FlowMatching(settings)
