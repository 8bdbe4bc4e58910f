"""Gaussian diffusion with a learned variance, as DiT trains and samples it.

Equation numbers: DDPM is Ho et al. 2020, IDDPM is Nichol & Dhariwal 2021, DDIM is Song et al. 2021.
"""

import math
from itertools import accumulate, repeat
from typing import NamedTuple

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.backbones import Diffusion
from entpruner.params.sampling import Sampling
from entpruner.process.base import Process, fresh_noise, image_means, uniform
from entpruner.process.guidance import Network, guided


class Posterior(NamedTuple):
    """The network's p(x_{s-1} | x_s) and its prediction of x_0, each (B, C, H, W)."""

    mean: Tensor
    log_variance: Tensor
    x0: Tensor


class Chain:
    """A Markov chain of S noising steps: its tables, (S,) float64, and the equations that use them.

    A chain may be a respacing of a longer one. ``s`` (B,) are steps of this chain, counted from 0. ``timesteps[s]`` are
    the same steps in the numbering that the network was trained with.
    """

    def __init__(self, timesteps: Tensor, alpha_bar: Tensor) -> None:
        self.timesteps = timesteps  # (S,) int64
        self.alpha_bar = alpha_bar
        self.alpha_bar_prev = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
        self.beta = 1 - alpha_bar / self.alpha_bar_prev
        # DDPM eq. 7. The variance at s = 0 is 0, so its logarithm is that of the variance at s = 1.
        variance = self.beta * (1 - self.alpha_bar_prev) / (1 - alpha_bar)
        self.log_variance = torch.cat([variance[:2][-1:], variance[1:]]).log()
        self.mean_x0 = self.beta * self.alpha_bar_prev.sqrt() / (1 - alpha_bar)
        self.mean_xt = (1 - self.alpha_bar_prev) * (1 - self.beta).sqrt() / (1 - alpha_bar)

    @classmethod
    def linear(cls, timesteps: int) -> "Chain":
        """The chain whose beta grows linearly from 1e-4 to 2e-2 in 1000 steps.

        For another number of steps beta is scaled, as IDDPM does, so that the last step is as noisy.
        """
        scale = 1000 / timesteps
        beta = torch.linspace(scale * 1e-4, scale * 2e-2, timesteps, dtype=torch.float64)
        if beta[-1] >= 1:
            raise UserError(
                f"diffusion with {timesteps} timesteps: the linear schedule needs more than 20; raise timesteps"
            )
        return cls(torch.arange(timesteps), (1 - beta).cumprod(0))

    def respaced(self, steps: int) -> "Chain":
        """The chain of ``steps`` of these steps, at even distances from the first to the last.

        Raises UserError if the chain has fewer steps.
        """
        total = len(self.timesteps)
        if steps > total:
            raise UserError(
                f"{steps} sampling steps: the diffusion has {total} timesteps; ask for at most {total} steps"
            )
        stride = (total - 1) / max(steps - 1, 1)
        # The official code sums the stride and rounds half to even. A product would round some steps otherwise.
        kept = torch.tensor([round(step) for step in accumulate(repeat(stride, steps - 1), initial=0.0)])
        return Chain(self.timesteps[kept], self.alpha_bar[kept])

    def to(self, device: torch.device) -> "Chain":
        return Chain(self.timesteps.to(device), self.alpha_bar.to(device))

    def q_sample(self, x0: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        """DDPM eq. 4: x_s of x_0 and noise, (B, C, H, W)."""
        return _at(self.alpha_bar.sqrt(), s, x0) * x0 + _at((1 - self.alpha_bar).sqrt(), s, x0) * noise

    def q_posterior_mean(self, x0: Tensor, x: Tensor, s: Tensor) -> Tensor:
        """DDPM eq. 7: the mean of q(x_{s-1} | x_s, x_0), (B, C, H, W)."""
        return _at(self.mean_x0, s, x) * x0 + _at(self.mean_xt, s, x) * x

    def p_posterior(self, output: Tensor, x: Tensor, s: Tensor) -> Posterior:
        """The distribution of x_{s-1} by the network's output (B, 2C, H, W) at x_s. x_0 is not clipped."""
        eps, v = output.chunk(2, dim=1)
        x0 = _at((1 / self.alpha_bar).sqrt(), s, x) * x - _at((1 / self.alpha_bar - 1).sqrt(), s, x) * eps
        fraction = (v + 1) / 2  # IDDPM eq. 15, v in [-1, 1]
        log_variance = fraction * _at(self.beta.log(), s, x) + (1 - fraction) * _at(self.log_variance, s, x)
        return Posterior(self.q_posterior_mean(x0, x, s), log_variance, x0)

    def ddpm_step(self, output: Tensor, x: Tensor, s: Tensor, noise: Tensor) -> Tensor:
        """x_{s-1}, drawn from the network's posterior. At s = 0 it is the posterior's mean."""
        p = self.p_posterior(output, x, s)
        return torch.where(s.view(-1, 1, 1, 1) > 0, p.mean + (p.log_variance / 2).exp() * noise, p.mean)

    def ddim_step(self, output: Tensor, x: Tensor, s: Tensor) -> Tensor:
        """DDIM eq. 12 without noise (eta = 0)."""
        eps, x0 = output.chunk(2, dim=1)[0], self.p_posterior(output, x, s).x0
        return _at(self.alpha_bar_prev.sqrt(), s, x) * x0 + _at((1 - self.alpha_bar_prev).sqrt(), s, x) * eps


class GaussianDiffusion(Process):
    """DiT's process: t counts the steps from the data, 0, to pure noise, timesteps-1.

    The network predicts the noise, and with the second half of its channels the variance of a denoising step.
    """

    def __init__(self, settings: Diffusion) -> None:
        self.timesteps = settings.timesteps
        self._chains = {torch.device("cpu"): Chain.linear(settings.timesteps)}

    def chain(self, device: torch.device) -> Chain:
        """The chain of all timesteps, with its tables on ``device``. They are copied there once."""
        if device not in self._chains:
            self._chains[device] = self._chains[torch.device("cpu")].to(device)
        return self._chains[device]

    def draw_times(self, n: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        """The times are int64."""
        return (uniform(n, generator, stratified) * self.timesteps).long()

    def time_fraction(self, t: Tensor) -> Tensor:
        return t / self.timesteps

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.chain(x.device).q_sample(x, noise, t)

    def losses(self, model: Network, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        """IDDPM's hybrid loss: "loss" is "mse" of the noise + "vb", the variational bound in bits per dimension.

        The bound trains the variance alone, because the predicted noise is detached. As in DiT, it is not rescaled.
        """
        chain = self.chain(x.device)
        x_t = chain.q_sample(x, noise, t)
        output = model(x_t, t, y).to(x.dtype)  # under autocast the output is bfloat16
        eps, v = output.chunk(2, dim=1)
        p = chain.p_posterior(torch.cat([eps.detach(), v], dim=1), x_t, t)
        kl = gaussian_kl(chain.q_posterior_mean(x, x_t, t), _at(chain.log_variance, t, x), p.mean, p.log_variance)
        nats = torch.where(t == 0, image_means(pixel_nll(x, p.mean, p.log_variance)), image_means(kl))
        mse, vb = image_means((noise - eps) ** 2), nats / math.log(2)
        return {"loss": mse + vb, "mse": mse, "vb": vb}

    def distillation_loss(self, output: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """MSE between the noises + KL from the target's p(x_{t-1} | x_t) to the output's in bits per dimension.

        As in ``losses``, the second term trains the variance alone.
        """
        chain = self.chain(x_t.device)
        (eps, v), teacher = output.chunk(2, dim=1), chain.p_posterior(target, x_t, t)
        p = chain.p_posterior(torch.cat([eps.detach(), v], dim=1), x_t, t)
        kl = gaussian_kl(teacher.mean, teacher.log_variance, p.mean, p.log_variance)
        return image_means((eps - self.prediction(target)) ** 2) + image_means(kl) / math.log(2)

    @torch.no_grad()
    def sample(
        self, model: BlockNetwork, noise: Tensor, y: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Ancestral DDPM, or DDIM with eta 0, in ``sampling.diffusion.steps`` respaced steps."""
        settings = sampling.diffusion
        network = guided(model, sampling.guidance, sampling.guided_channels)
        chain = self.chain(torch.device("cpu")).respaced(settings.steps).to(noise.device)
        x = noise
        for step in reversed(range(settings.steps)):
            s = torch.full((len(x),), step, device=x.device)
            output = network(x, chain.timesteps[s], y).to(x.dtype)
            if settings.name == "ddim":
                x = chain.ddim_step(output, x, s)
            else:
                x = chain.ddpm_step(output, x, s, fresh_noise(x, generator))
        return x


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other mean, other variance)) of each element, in nats."""
    ratio = (log_variance - other_log_variance).exp()
    distance = (mean - other_mean) ** 2 * (-other_log_variance).exp()
    return (other_log_variance - log_variance + ratio + distance - 1) / 2


def pixel_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """DDPM eq. 13: -log of the mass that a Gaussian puts on the 8-bit level of each x in [-1, 1], in nats.

    A level is 2/255 wide. The first and the last level are open to infinity.
    """
    inverse_std = (-log_variance / 2).exp()
    below = normal_cdf((x - mean - 1 / 255) * inverse_std)
    up_to = normal_cdf((x - mean + 1 / 255) * inverse_std)
    mass = torch.where(x < -0.999, up_to, torch.where(x > 0.999, 1 - below, up_to - below))
    return -mass.clamp(min=1e-12).log()


def normal_cdf(x: Tensor) -> Tensor:
    """Page's approximation by tanh (1977), which the published losses use."""
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _at(table: Tensor, s: Tensor, like: Tensor) -> Tensor:
    """The entry of each sample as a factor of its image, in the images' precision: (B, 1, 1, 1)."""
    return table[s].to(like.dtype).view(-1, 1, 1, 1)
