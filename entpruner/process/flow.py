"""Flow matching along an interpolant between noise (t = 0) and data (t = 1), as SiT trains and samples it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.backbones import Flow
from entpruner.params.sampling import FlowSampler, Sampling
from entpruner.process.base import Process, fresh_noise, image_means, uniform
from entpruner.process.guidance import Network, guided

Velocity = Callable[[Tensor, float], Tensor]  # x (B, C, H, W), one t for the batch -> dx/dt (B, C, H, W)

LAST_STEP = 0.04  # the last step of SiT's SDE has no noise, because the score has no limit at t = 1


class Coefficients(NamedTuple):
    """x_t = alpha data + sigma noise, and the derivatives of alpha and sigma in t, each of the shape of t."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


def linear(t: Tensor) -> Coefficients:
    """The interpolant that is a straight line from noise to data."""
    return Coefficients(t, 1 - t, torch.ones_like(t), -torch.ones_like(t))


def gvp(t: Tensor) -> Coefficients:
    """The generalised variance preserving interpolant: a quarter of the circle alpha**2 + sigma**2 = 1."""
    angle, speed = t * (math.pi / 2), math.pi / 2
    return Coefficients(angle.sin(), angle.cos(), speed * angle.cos(), -speed * angle.sin())


INTERPOLANTS = {"linear": linear, "gvp": gvp}


class FlowMatching(Process):
    """SiT's process: t in [0, 1] runs from noise to data, and the network predicts the velocity dx/dt.

    The second half of the output is unused. SiT has it because its networks are those of DiT.
    """

    def __init__(self, settings: Flow) -> None:
        self.interpolant = INTERPOLANTS[settings.interpolant]

    def draw_times(self, n: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        """The times are float32 in (0, 1]."""
        return (1 - uniform(n, generator, stratified)).float()

    def time_fraction(self, t: Tensor) -> Tensor:
        return 1 - t

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        at = self.interpolant(t.to(x.dtype).view(-1, 1, 1, 1))
        return at.alpha * x + at.sigma * noise

    def velocity(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The velocity that the network learns, which is the interpolant's derivative in t: (B, C, H, W)."""
        at = self.interpolant(t.to(x.dtype).view(-1, 1, 1, 1))
        return at.d_alpha * x + at.d_sigma * noise

    def score(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p_t at x, (B, C, H, W), computed from the velocity at x as in SiT. t: ()."""
        at = self.interpolant(t)
        return (at.alpha * velocity - at.d_alpha * x) / (at.sigma * (at.d_alpha * at.sigma - at.alpha * at.d_sigma))

    def losses(self, model: Network, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The loss is the mean squared error of the velocity."""
        error = self.prediction(model(self.add_noise(x, noise, t), t, y)) - self.velocity(x, noise, t)
        return {"loss": image_means(error**2)}

    def distillation_loss(self, output: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The distance is the mean squared difference of the velocities."""
        return image_means((self.prediction(output) - self.prediction(target)) ** 2)

    @torch.no_grad()
    def sample(
        self, model: BlockNetwork, noise: Tensor, y: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        settings = sampling.flow
        network = guided(model, sampling.guidance, sampling.guided_channels)

        def velocity(x: Tensor, t: float) -> Tensor:
            output = network(x, torch.full((len(x),), t, device=x.device), y)
            return self.prediction(output).to(x.dtype)  # under autocast the output is bfloat16

        match settings.name:
            case "euler":
                return euler(velocity, noise, settings.steps)
            case "heun":
                return heun(velocity, noise, settings.steps)
            case "dopri5":
                return dopri5(velocity, noise, settings)
            case "sde":
                return self.euler_maruyama(velocity, noise, settings.steps, generator)

    def euler_maruyama(self, velocity: Velocity, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """SiT's SDE with the same marginals as the ODE: dx = (v + w score) dt + sqrt(2 w) dW, where w = sigma(t).

        There are steps - 1 even steps from t = 0 to 0.96, and then one of 0.04 without noise. The network is evaluated
        once in each step, for the velocity and the score. Raises UserError for fewer than 2 steps.
        """
        if steps < 2:
            raise UserError(f"flow sampler sde with steps {steps}: the last step has no noise; set steps to 2 or more")
        times = torch.linspace(0, 1 - LAST_STEP, steps, dtype=torch.float64)
        sizes = [*times.diff().tolist(), LAST_STEP]
        for step, (t, size) in enumerate(zip(times, sizes, strict=True)):
            v = velocity(x, t.item())
            w = self.interpolant(t).sigma.item()
            x = x + size * (v + w * self.score(v, x, t))
            if step < steps - 1:
                x = x + math.sqrt(2 * w * size) * fresh_noise(x, generator)
        return x


def euler(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """Euler's method in even steps from t = 0 to 1, with one evaluation in each step."""
    for step in range(steps):
        x = x + velocity(x, step / steps) / steps
    return x


def heun(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """Heun's method in even steps from t = 0 to 1, with two evaluations in each step."""
    for step in range(steps):
        here = velocity(x, step / steps)
        there = velocity(x + here / steps, (step + 1) / steps)
        x = x + (here + there) / (2 * steps)
    return x


def dopri5(velocity: Velocity, x: Tensor, settings: FlowSampler) -> Tensor:
    """The adaptive Dormand-Prince 5(4) method of SciPy from t = 0 to 1, with a float64 state.

    All images of the batch share one step size, which follows from the error of all their values. Raises UserError if
    a velocity is not finite, or if the solver fails.
    """
    from scipy.integrate import solve_ivp  # its import is slow, and only this sampler needs it

    def derivative(t: float, state: np.ndarray) -> np.ndarray:
        v = velocity(torch.from_numpy(state).to(x).view_as(x), t).flatten().double().cpu().numpy()
        if not np.isfinite(v).all():  # the solver would try smaller and smaller steps without an end
            raise UserError(
                f"flow sampler dopri5: the velocity at t={t:.3g} is not finite; check the network's training"
            )
        return v

    start = x.flatten().double().cpu().numpy()
    solution = solve_ivp(derivative, (0.0, 1.0), start, t_eval=(1.0,), atol=settings.atol, rtol=settings.rtol)
    if not solution.success:
        raise UserError(f"flow sampler dopri5 stopped before t=1 ({solution.message}); set a larger rtol, or use heun")
    return torch.from_numpy(solution.y[:, -1]).to(x).view_as(x)
