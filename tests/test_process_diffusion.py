"""Gaussian diffusion: identities that hold whatever the network."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entpruner.errors import UserError
from entpruner.params.backbones import Architecture, Diffusion
from entpruner.params.sampling import DiffusionSampler, Sampling
from entpruner.process import make_process
from entpruner.process.diffusion import Chain, gaussian_kl, normal_cdf, pixel_nll

ARCHITECTURE = Architecture(
    depth=1, hidden_size=4, num_heads=1, patch_size=1, input_size=2, in_channels=1, num_classes=3
)


class PerfectNetwork:
    """Knows the one image there is, so it predicts the exact noise; it remembers the times that it was asked for."""

    architecture, null_class = ARCHITECTURE, 3

    def __init__(self, process, x0, v=-1.0):
        self.process, self.x0, self.v, self.times = process, x0, v, []

    def __call__(self, x, t, y):
        self.times.append(t)
        alpha_bar = self.process.chain(x.device).alpha_bar[t].view(-1, 1, 1, 1)
        eps = (x - alpha_bar.sqrt() * self.x0) / (1 - alpha_bar).sqrt()
        return torch.cat([eps, torch.full_like(eps, self.v)], dim=1)


def images(n, seed=0):
    random = torch.Generator().manual_seed(seed)
    x0 = torch.rand(n, 1, 2, 2, generator=random, dtype=torch.float64) * 2 - 1
    return x0, torch.randn(x0.shape, generator=random, dtype=torch.float64)


@given(st.integers(21, 4000))
@settings(max_examples=20)
def test_any_number_of_timesteps_ends_in_noise(timesteps):
    chain = Chain.linear(timesteps)
    assert (chain.beta > 0).all()
    assert (chain.alpha_bar.diff() < 0).all()
    assert 0 < chain.alpha_bar[-1] < 1e-4


def test_too_few_timesteps():
    with pytest.raises(UserError, match=r"20 timesteps.*raise timesteps"):
        make_process(Diffusion(timesteps=20))


@given(st.integers(21, 1500), st.data())
@settings(max_examples=50)
def test_respacing_keeps_the_noise_levels(timesteps, data):
    steps = data.draw(st.integers(2, timesteps))
    chain = Chain.linear(timesteps)
    short = chain.respaced(steps)
    assert len(short.timesteps) == steps
    assert (short.timesteps.diff() > 0).all()
    assert short.timesteps[0] == 0 and short.timesteps[-1] == timesteps - 1
    torch.testing.assert_close(short.alpha_bar, chain.alpha_bar[short.timesteps], rtol=0, atol=0)
    torch.testing.assert_close((1 - short.beta).cumprod(0), short.alpha_bar)


def test_respacing_to_every_step_changes_nothing():
    chain = Chain.linear(100)
    assert torch.equal(chain.respaced(100).timesteps, chain.timesteps)


def test_more_sampling_steps_than_timesteps():
    with pytest.raises(UserError, match=r"101 sampling steps.*100 timesteps"):
        Chain.linear(100).respaced(101)


def test_one_step_of_noise_after_another_is_the_closed_form():
    """q(x_s | x_0) composes: DDPM eq. 2 applied S times has the mean and variance of eq. 4."""
    chain = Chain.linear(50)
    mean, variance = 1.0, 0.0
    for beta, alpha_bar in zip(chain.beta.tolist(), chain.alpha_bar.tolist(), strict=True):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert mean == pytest.approx(math.sqrt(alpha_bar))
        assert variance == pytest.approx(1 - alpha_bar)


def test_the_posterior_by_bayes_rule():
    """q(x_{s-1} | x_s, x_0) from the product of the two Gaussians that it combines."""
    chain = Chain.linear(50)
    (x0, noise), s = images(1), torch.tensor([30])
    x = chain.q_sample(x0, noise, s)
    prior_mean, prior_variance = chain.alpha_bar[29].sqrt() * x0, 1 - chain.alpha_bar[29]
    alpha, beta = 1 - chain.beta[30], chain.beta[30]
    precision = 1 / prior_variance + alpha / beta
    mean = (prior_mean / prior_variance + alpha.sqrt() * x / beta) / precision
    torch.testing.assert_close(chain.q_posterior_mean(x0, x, s), mean)
    torch.testing.assert_close(chain.log_variance[30], -precision.log())


def test_the_bound_vanishes_for_the_true_posterior():
    process = make_process(Diffusion(timesteps=50))
    x0, noise = images(4)
    t = torch.tensor([1, 7, 30, 49])
    losses = process.losses(PerfectNetwork(process, x0), x0, noise, t, torch.zeros(4).long())
    torch.testing.assert_close(losses["vb"], torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(losses["mse"], torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_bound_trains_the_variance_only():
    process = make_process(Diffusion(timesteps=50))
    x0, noise = images(3)
    output = torch.zeros(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    losses = process.losses(lambda *_: output, x0, noise, torch.tensor([0, 5, 40]), torch.zeros(3).long())
    losses["vb"].sum().backward(retain_graph=True)
    assert torch.equal(output.grad[:, :1], torch.zeros_like(x0))
    assert (output.grad[:, 1:] != 0).all()
    output.grad = None
    losses["loss"].sum().backward()
    torch.testing.assert_close(output.grad[:, :1], (output.detach()[:, :1] - noise) * 2 / noise[0].numel())


def test_kl_of_gaussians():
    p = torch.distributions.Normal(torch.tensor(0.3, dtype=torch.float64), 0.7)
    q = torch.distributions.Normal(torch.tensor(-0.5, dtype=torch.float64), 1.9)
    kl = gaussian_kl(p.mean, p.variance.log(), q.mean, q.variance.log())
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(p, q))


def test_the_256_levels_share_all_the_mass():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, std in ((0.1, 0.05), (-0.9, 0.3), (0.5, 2.0)):
        nll = pixel_nll(levels, torch.full_like(levels, mean), torch.full_like(levels, 2 * math.log(std)))
        assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-6)
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    torch.testing.assert_close(normal_cdf(x), torch.special.ndtr(x), rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_samplers_find_the_image_of_a_perfect_network(name, steps):
    process = make_process(Diffusion(timesteps=50))
    x0, noise = images(2)
    network = PerfectNetwork(process, x0)
    sampling = Sampling(guidance=1, diffusion=DiffusionSampler(name=name, steps=steps))
    y = torch.zeros(2, dtype=torch.int64)
    samples = process.sample(network, noise, y, sampling, torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples, x0, rtol=0, atol=1e-6)
    asked = [t[0].item() for t in network.times]
    assert asked == Chain.linear(50).respaced(steps).timesteps.flip(0).tolist()


def test_only_ddpm_draws_noise():
    process = make_process(Diffusion(timesteps=50))
    _, noise = images(2)

    def sample(name, seed):
        sampling = Sampling(guidance=1, diffusion=DiffusionSampler(name=name, steps=5))
        network = lambda x, t, y: torch.cat([x, x], dim=1) / 2  # noqa: E731
        y = torch.zeros(2, dtype=torch.int64)
        return process.sample(network, noise, y, sampling, torch.Generator().manual_seed(seed))

    assert torch.equal(sample("ddim", 0), sample("ddim", 1))
    assert torch.equal(sample("ddpm", 0), sample("ddpm", 0))
    assert not torch.equal(sample("ddpm", 0), sample("ddpm", 1))
