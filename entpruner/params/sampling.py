"""How images are sampled."""

from typing import Literal

from pydantic import Field

from entpruner.params.base import Frozen, Positive


class DiffusionSampler(Frozen):
    name: Literal["ddpm", "ddim"] = "ddpm"
    """The official DiT's sampler (``ddpm``), or DDIM without noise."""
    steps: Positive = 250
    """Timesteps kept of the schedule; one network evaluation each."""


class FlowSampler(Frozen):
    name: Literal["euler", "heun", "dopri5", "sde"] = "dopri5"
    """How the equation is solved: Euler, Heun, the adaptive Dormand-Prince 5, or Euler-Maruyama's steps of the
    stochastic one."""
    steps: Positive = 50
    """Steps of the grid from t=0 to 1 (Heun evaluates twice a step; dopri5 chooses its own)."""
    atol: float = Field(1e-6, gt=0)
    """Absolute tolerance of dopri5."""
    rtol: float = Field(1e-3, gt=0)
    """Relative tolerance of dopri5; ``atol`` is the absolute one."""


class Sampling(Frozen):
    """How images are sampled for evaluation: the same noise for every arm of a seed."""

    samples: Positive = 1000
    """Images in all, the classes in turn."""
    batch_size: Positive = 250
    """Images that are sampled at once."""
    guidance: float = Field(1.5, ge=1)
    """Classifier-free guidance scale; 1 is none."""
    guided_channels: Positive = 3
    """Channels that guidance acts on: the official samplers guide the first 3 only."""
    diffusion: DiffusionSampler = DiffusionSampler()
    """The sampler of diffusion networks."""
    flow: FlowSampler = FlowSampler()
    """The sampler of flow networks."""
