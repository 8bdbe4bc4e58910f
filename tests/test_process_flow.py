"""Flow matching: identities of the interpolants, and samplers on problems with known solutions."""

import math

import pytest
import torch

from entpruner.errors import UserError
from entpruner.params.backbones import Architecture, Flow
from entpruner.params.sampling import FlowSampler, Sampling
from entpruner.process import make_process

INTERPOLANTS = ("linear", "gvp")
LABELS = torch.zeros(2, dtype=torch.int64)


class Field:
    """A network of a given velocity; it counts its evaluations and remembers their times."""

    architecture = Architecture(
        depth=1, hidden_size=4, num_heads=1, patch_size=1, input_size=2, in_channels=1, num_classes=3
    )
    null_class = 3

    def __init__(self, velocity):
        self.velocity, self.times, self.sizes = velocity, [], []

    def __call__(self, x, t, y):
        self.times.append(t[0].item())
        self.sizes.append(len(x))
        return torch.cat([self.velocity(x, t.view(-1, 1, 1, 1)), torch.full_like(x, math.nan)], dim=1)


def images(seed, n=2):
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(network, noise, name, steps=10, seed=0, interpolant="linear", guidance=1.0, **tolerances):
    sampling = Sampling(guidance=guidance, flow=FlowSampler(name=name, steps=steps, **tolerances))
    random = torch.Generator().manual_seed(seed)
    return make_process(Flow(interpolant=interpolant)).sample(network, noise, LABELS, sampling, random)


@pytest.mark.parametrize("interpolant", INTERPOLANTS)
def test_noise_at_0_and_data_at_1(interpolant):
    flow, x, noise = make_process(Flow(interpolant=interpolant)), images(0), images(1)
    torch.testing.assert_close(flow.add_noise(x, noise, torch.zeros(2)), noise)
    torch.testing.assert_close(flow.add_noise(x, noise, torch.ones(2)), x)


@pytest.mark.parametrize("interpolant", INTERPOLANTS)
def test_the_velocity_is_the_derivative(interpolant):
    flow, x, noise = make_process(Flow(interpolant=interpolant)), images(0), images(1)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    change = (flow.add_noise(x, noise, t + 1e-5) - flow.add_noise(x, noise, t - 1e-5)) / 2e-5
    torch.testing.assert_close(flow.velocity(x, noise, t), change, rtol=0, atol=1e-8)


@pytest.mark.parametrize("interpolant", INTERPOLANTS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.96])
def test_the_score_of_a_single_image_is_that_of_its_gaussian(interpolant, t):
    """Data at one point: p_t = N(alpha x, sigma**2), so the score at x_t is -noise / sigma."""
    flow, x, noise = make_process(Flow(interpolant=interpolant)), images(0), images(1)
    time = torch.tensor(t, dtype=torch.float64)
    score = flow.score(flow.velocity(x, noise, time.expand(2)), flow.add_noise(x, noise, time.expand(2)), time)
    torch.testing.assert_close(score, -noise / flow.interpolant(time).sigma)


def test_the_loss_is_the_mean_squared_error_of_the_velocity():
    flow, x, noise = make_process(Flow()), images(0), images(1)
    losses = flow.losses(Field(lambda x, t: 3 * x), x, noise, torch.tensor([0.25, 0.75]), LABELS)
    x_t = torch.stack([0.25 * x[0] + 0.75 * noise[0], 0.75 * x[1] + 0.25 * noise[1]])
    assert set(losses) == {"loss"}
    torch.testing.assert_close(losses["loss"], ((3 * x_t - (x - noise)) ** 2).mean((1, 2, 3)))


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_the_fixed_solvers(name, order):
    """dx/dt = x cos t has the solution x(0) exp(sin 1): halving the step divides the error by 2**order."""
    noise, field = images(0), Field(lambda x, t: x * t.double().cos())
    exact = noise * math.exp(math.sin(1))
    errors = [(sample(field, noise, name, steps) - exact).abs().max().item() for steps in (32, 64)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_dopri5_meets_its_tolerance_and_spends_more_for_a_tighter_one():
    noise, evaluations = images(0), []
    for rtol in (1e-3, 1e-6):
        field = Field(lambda x, t: x * (9 * t.double()).cos())
        samples = sample(field, noise, "dopri5", atol=rtol / 1000, rtol=rtol)
        torch.testing.assert_close(samples, noise * math.exp(math.sin(9) / 9), rtol=10 * rtol, atol=0)
        evaluations.append(len(field.times))
    assert evaluations[0] < evaluations[1]


def test_dopri5_stops_at_a_velocity_that_is_not_finite():
    with pytest.raises(UserError, match="velocity at t=0 is not finite"):
        sample(Field(lambda x, t: x * math.nan), images(0), "dopri5")


def test_dopri5_says_so_when_it_cannot_reach_the_end():
    """dx/dt = 4 x**2 + 1 from 0 is tan(2 t) / 2, which has no value beyond t = pi / 4."""
    with pytest.raises(UserError, match="dopri5 stopped before t=1"):
        sample(Field(lambda x, t: 4 * x**2 + 1), torch.zeros_like(images(0)), "dopri5")


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 10), ("heun", 20), ("sde", 10)])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_evaluations(name, evaluations, guidance):
    """The SDE's score costs no evaluation of its own, and guidance doubles the batch instead of the calls."""
    field = Field(lambda x, t: -x)
    sample(field, images(0), name, steps=10, guidance=guidance)
    assert len(field.times) == evaluations
    assert set(field.sizes) == {2 if guidance == 1 else 4}


@pytest.mark.parametrize("interpolant", INTERPOLANTS)
def test_the_sde_keeps_the_distribution_of_the_ode(interpolant):
    """Data N(0, 0.5**2): the exact velocity is linear in x, and both samplers must end at that spread."""
    flow, spread = make_process(Flow(interpolant=interpolant)), 0.5

    def velocity(x, t):
        at = flow.interpolant(t.double())
        covariance = at.d_alpha * at.alpha * spread**2 + at.d_sigma * at.sigma
        return x * covariance / (at.alpha**2 * spread**2 + at.sigma**2)

    noise = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, steps in (("euler", 200), ("sde", 200)):
        samples = sample(Field(velocity), noise, name, steps, interpolant=interpolant)
        assert samples.std().item() == pytest.approx(spread, rel=0.03)


def test_the_sde_ends_with_a_step_without_noise():
    """One noisy step from t = 0 to 0.96, then one of 0.04, both at velocity 0, where the score is -x / (1 - t)."""
    field = Field(lambda x, t: torch.zeros_like(x))
    one, other = (sample(field, images(0), "sde", steps=2, seed=seed) for seed in (0, 1))
    assert field.times[:2] == pytest.approx([0, 0.96])
    assert not torch.equal(one, other)
    fresh = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (images(0) * (1 - 0.96) + math.sqrt(2 * 0.96) * fresh) * (1 - 0.04)
    torch.testing.assert_close(one, expected)


def test_the_sde_needs_two_steps():
    with pytest.raises(UserError, match="set steps to 2 or more"):
        sample(Field(lambda x, t: x), images(0), "sde", steps=1)
