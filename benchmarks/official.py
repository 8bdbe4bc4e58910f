"""Training steps, samplers and proxies in the plain form in which their papers and public code describe them.

They are written anew from the descriptions, to compare with: Peebles & Xie 2023 (DiT), Ma et al. 2024 (SiT), Nichol &
Dhariwal 2021 (the diffusion that DiT uses), Chen et al. 2021 (TE-NAS) and Li et al. 2023 (ZiCo). Images are
x (B, C, H, W), times t (B,) and labels y (B,).
"""

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork

LossOf = Callable[[BlockNetwork, Tensor, Tensor], Tensor]
"""The loss () of a batch: of model, images and labels."""
Sampler = Callable[[BlockNetwork, Tensor, Tensor, float, int, torch.Generator], Tensor]
"""Images (B, C, H, W) of model, noise, labels, guidance, steps and a generator on the CPU.

A sampler evaluates a doubled batch, whose second half has no class, and keeps the first half.
"""


class Diffusion:
    """DiT's diffusion of 1000 steps. Tables are float64 arrays, and each use takes rows of them to a tensor."""

    def __init__(self, steps: int = 1000, used: int = 1000) -> None:
        """``used`` are the steps of sampling. ``timesteps`` are their numbers in the whole chain."""
        alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, steps))
        self.timesteps = np.round(np.linspace(0, steps - 1, used)).astype(int)
        self.alpha_bar = alpha_bar[self.timesteps]
        previous = np.append(1.0, self.alpha_bar[:-1])
        beta = 1 - self.alpha_bar / previous
        variance = beta * (1 - previous) / (1 - self.alpha_bar)
        self.log_beta = np.log(beta)
        self.log_variance = np.log(np.append(variance[1], variance[1:]))
        self.of_x0 = beta * np.sqrt(previous) / (1 - self.alpha_bar)
        self.of_xt = (1 - previous) * np.sqrt(1 - beta) / (1 - self.alpha_bar)

    def loss(self, model: BlockNetwork, x: Tensor, y: Tensor) -> Tensor:
        """The mean squared error of the noise, and the variational bound, which trains the variance alone."""
        t = torch.randint(len(self.timesteps), (len(x),), device=x.device)
        noise = torch.randn_like(x)
        x_t = rows(np.sqrt(self.alpha_bar), t, x) * x + rows(np.sqrt(1 - self.alpha_bar), t, x) * noise
        eps, v = model(x_t, t, y).chunk(2, dim=1)
        mean, log_variance = self.posterior(torch.cat([eps.detach(), v], dim=1), x_t, t)
        true_mean = rows(self.of_x0, t, x) * x + rows(self.of_xt, t, x) * x_t
        true_log_variance = rows(self.log_variance, t, x)
        kl = 0.5 * (
            log_variance
            - true_log_variance
            - 1
            + (true_log_variance - log_variance).exp()
            + (true_mean - mean) ** 2 * (-log_variance).exp()
        )
        scale = (-0.5 * log_variance).exp()
        above, below = (normal_cdf(scale * (x - mean + side / 255)) for side in (1, -1))
        inside = (above - below).clamp(min=1e-12).log()
        edge = torch.where(x > 0.999, (1 - below).clamp(min=1e-12).log(), inside)
        likelihood = torch.where(x < -0.999, above.clamp(min=1e-12).log(), edge)
        bound = torch.where(t == 0, -likelihood.mean((1, 2, 3)), kl.mean((1, 2, 3))) / math.log(2)
        return (((noise - eps) ** 2).mean((1, 2, 3)) + bound).mean()

    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the previous step by the network's output: each (B, C, H, W)."""
        eps, v = output.chunk(2, dim=1)
        log_variance = (v + 1) / 2 * rows(self.log_beta, t, x_t) + (1 - v) / 2 * rows(self.log_variance, t, x_t)
        x0 = rows(np.sqrt(1 / self.alpha_bar), t, x_t) * x_t - rows(np.sqrt(1 / self.alpha_bar - 1), t, x_t) * eps
        return rows(self.of_x0, t, x_t) * x0 + rows(self.of_xt, t, x_t) * x_t, log_variance


def rows(table: np.ndarray, t: Tensor, like: Tensor) -> Tensor:
    """The entry of each sample, spread over its image: (B, C, H, W)."""
    return torch.from_numpy(table).to(t.device)[t].float().view(-1, 1, 1, 1).expand(like.shape)


def normal_cdf(x: Tensor) -> Tensor:
    """Page's approximation by tanh (1977), which the published losses use."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def flow_loss(model: BlockNetwork, x: Tensor, y: Tensor) -> Tensor:
    """SiT's mean squared error of the velocity along straight lines from noise (t = 0) to data (t = 1)."""
    t, noise = torch.rand(len(x), device=x.device), torch.randn_like(x)
    along = t.view(-1, 1, 1, 1).expand(x.shape)
    predicted = model(along * x + (1 - along) * noise, t, y).chunk(2, dim=1)[0]
    return ((predicted - (x - noise)) ** 2).mean((1, 2, 3)).mean()


def trainer(model: BlockNetwork, loss_of: LossOf, images: Tensor, labels: Tensor, batch: int) -> Callable[[], None]:
    """A function that makes one step: random images, labels dropped in 10 %, AdamW, and the average of the weights."""
    average, device = deepcopy(model), images.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)

    def step() -> None:
        chosen = torch.randint(len(images), (batch,), device=device)
        y = torch.where(torch.rand(batch, device=device) < 0.1, model.null_class, labels[chosen])
        loss = loss_of(model, images[chosen], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            averages = dict(average.named_parameters())
            for name, parameter in model.named_parameters():
                averages[name].mul_(0.9999).add_(parameter, alpha=1 - 0.9999)
        loss.item()  # our loop reads its losses, too

    return step


def doubled(model: BlockNetwork, noise: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The noise twice, and the labels followed by as many of no class."""
    return torch.cat([noise, noise]), torch.cat([y, torch.full_like(y, model.null_class)])


def guided(model: BlockNetwork, x: Tensor, t: Tensor, labels: Tensor, guidance: float) -> Tensor:
    """The output of a doubled batch, whose first three channels are guided in both halves."""
    half = x[: len(x) // 2]
    output = model(torch.cat([half, half]), t, labels)
    with_class, without = output[:, :3].chunk(2)
    mixed = without + guidance * (with_class - without)
    return torch.cat([torch.cat([mixed, mixed]), output[:, 3:]], dim=1)


@torch.no_grad()
def ddpm(model: BlockNetwork, noise: Tensor, y: Tensor, guidance: float, steps: int, draw: torch.Generator) -> Tensor:
    """DiT's ancestral sampling in ``steps`` of the 1000 steps."""
    chain = Diffusion(used=steps)
    x, labels = doubled(model, noise, y)
    for step in reversed(range(steps)):
        s = torch.full((len(x),), step, device=x.device)
        t = torch.from_numpy(chain.timesteps).to(x.device)[s]
        mean, log_variance = chain.posterior(guided(model, x, t, labels, guidance), x, s)
        fresh = torch.randn(noise.shape, generator=draw).to(x.device)
        x = mean + (s > 0).float().view(-1, 1, 1, 1) * (0.5 * log_variance).exp() * torch.cat([fresh, fresh])
    return x.chunk(2)[0]


@torch.no_grad()
def euler(model: BlockNetwork, noise: Tensor, y: Tensor, guidance: float, steps: int, _: torch.Generator) -> Tensor:
    """SiT's ODE from t = 0 to 1 in even steps. It draws nothing."""
    x, labels = doubled(model, noise, y)
    for step in range(steps):
        t = torch.full((len(x),), step / steps, device=x.device)
        x = x + guided(model, x, t, labels, guidance).chunk(2, dim=1)[0] / steps
    return x.chunk(2)[0]


@torch.no_grad()
def sde(model: BlockNetwork, noise: Tensor, y: Tensor, guidance: float, steps: int, draw: torch.Generator) -> Tensor:
    """SiT's SDE with w = sigma(t). The drift and the score each evaluate the network, as in the public code."""
    x, labels = doubled(model, noise, y)
    last = 0.04  # the size of the last step, which has no noise
    times = torch.linspace(0, 1 - last, steps, dtype=torch.float64)
    sizes = [*times.diff().tolist(), last]
    for number, (time, size) in enumerate(zip(times.tolist(), sizes, strict=True)):
        t = torch.full((len(x),), time, device=x.device)
        velocity = guided(model, x, t, labels, guidance).chunk(2, dim=1)[0]
        again = guided(model, x, t, labels, guidance).chunk(2, dim=1)[0]
        w = 1 - time
        x = x + size * (velocity + w * (time * again - x) / w)
        if number < steps - 1:
            fresh = torch.randn(noise.shape, generator=draw).to(x.device)
            x = x + math.sqrt(2 * w * size) * torch.cat([fresh, fresh])
    return x.chunk(2)[0]


def proxies(
    outputs: Callable[[slice], Tensor],
    losses: Callable[[slice], Tensor],
    weights: list[Tensor],
    layers: list[Tensor],
    count: int,
    alone: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The Gram matrix (N, N) of N samples and the mean gradient of each layer, by two backward passes a sample.

    ``outputs`` and ``losses`` give (n,) for some of the samples: the summed output and the loss of each. With
    ``alone``, each sample goes through the network by itself. Otherwise each backward pass goes through the graph of
    the whole batch, as in TE-NAS and AutoProg-Zero.
    """
    gradients: list[Tensor] = []
    mean = [torch.zeros_like(layer) for layer in layers]
    for samples in [slice(i, i + 1) for i in range(count)] if alone else [slice(0, count)]:
        for f, loss in zip(outputs(samples), losses(samples), strict=True):
            row = torch.autograd.grad(f, weights, retain_graph=True)
            gradients.append(torch.cat([gradient.flatten() for gradient in row]))
            for total, gradient in zip(mean, torch.autograd.grad(loss, layers, retain_graph=True), strict=True):
                total += gradient / count
    g = torch.stack(gradients).double()
    return g @ g.T, mean
