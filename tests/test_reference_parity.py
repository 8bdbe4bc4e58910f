"""Agreement with the official DiT and SiT code, number by number; tests/goldens/README.md says what each golden is.

``--goldens DIR`` takes another folder of that form: every size is read from its config.json.
"""

import copy
import json

import numpy as np
import pytest
import torch

from entpruner.models.checkpoints import load_official
from entpruner.models.surgery import drop_blocks
from entpruner.params.backbones import Architecture, Diffusion, Flow
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.process import make_process
from entpruner.process.diffusion import Chain
from entpruner.process.guidance import guided
from entpruner.proxies.ntk import GramMatrices, condition
from entpruner.proxies.per_sample import take_gradients
from entpruner.proxies.zico import layer_ratios, zico_value

NO_NOISE = torch.Generator()  # for the samplers that draw none
INTERPOLANTS = {"Linear": "linear", "GVP": "gvp"}  # the official names and ours


@pytest.fixture(scope="module")
def folder(pytestconfig):
    return pytestconfig.getoption("goldens")


@pytest.fixture(scope="module")
def golden(folder):
    with np.load(folder / "golden.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file}


@pytest.fixture(scope="module")
def architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    return Architecture(
        depth=config["depth"],
        hidden_size=config["hidden"],
        num_heads=config["heads"],
        patch_size=config["patch"],
        input_size=config["inp"],
        in_channels=config["ch"],
        num_classes=config["classes"],
    )


@pytest.fixture(scope="module")
def dit(folder, architecture):
    return load_official(folder / "dit.safetensors", architecture).requires_grad_(False)


@pytest.fixture(scope="module")
def sit(folder, architecture):
    return load_official(folder / "sit.safetensors", architecture).requires_grad_(False)


@pytest.fixture(params=["dit", "sit"])
def family(request, golden):
    """Name of the family, its network, its times, and how many of its 2C output channels the official code returns."""
    channels = golden["x"].shape[1]
    time, returned = ("t_diffusion", 2 * channels) if request.param == "dit" else ("t_flow", channels)
    return request.param, request.getfixturevalue(request.param), golden[time], returned


@pytest.fixture(scope="module")
def diffusion():
    return make_process(Diffusion())


def agree(actual, expected, tolerance):
    """Greatest absolute error over greatest absolute value."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, f"{error:.2e} > {tolerance:.0e}"


def test_the_output(golden, family):
    name, model, t, returned = family
    agree(model(golden["x"], t, golden["y"])[:, :returned], golden[f"{name}/out"], 1e-5)


def test_the_output_without_each_block(golden, family):
    name, model, t, returned = family
    expected = golden[f"{name}/out_without_block"]
    assert len(expected) == len(model.blocks)
    for block, output in enumerate(expected):
        agree(drop_blocks(model, {block})(golden["x"], t, golden["y"])[:, :returned], output, 1e-5)


def test_guidance(golden, family):
    """The golden batch is already stacked, and its two halves have times of their own."""
    name, model, t, returned = family
    x, y = (half[0] for half in (golden["dit/cfg_x"].chunk(2), golden["dit/cfg_y"].chunk(2)))

    class AtGoldenTimes:
        architecture, null_class = model.architecture, model.null_class

        def __call__(self, stacked_x, _, stacked_y):
            assert torch.equal(stacked_y, golden["dit/cfg_y"])
            return model(stacked_x, t, stacked_y)

    output = guided(AtGoldenTimes(), 1.5, 3)(x, t[: len(x)], y)[:, :returned]
    agree(output, golden[f"{name}/out_cfg_1.5"][: len(x)], 1e-5)


def test_the_noise_schedule(golden):
    chain = Chain.linear(1000)
    agree(chain.beta, golden["dit/betas"], 1e-12)
    agree(chain.alpha_bar, golden["dit/alphas_cumprod"], 1e-12)


@pytest.mark.parametrize("steps", [250, 50, 10])
def test_the_kept_timesteps(golden, steps):
    assert torch.equal(Chain.linear(1000).respaced(steps).timesteps, golden[f"dit/respaced_{steps}"])


def test_the_noised_image(golden, diffusion):
    agree(diffusion.add_noise(golden["x"], golden["noise"], golden["t_diffusion"]), golden["dit/q_sample"], 1e-6)


def test_the_diffusion_loss(golden, dit, diffusion):
    losses = diffusion.losses(dit, golden["x"], golden["noise"], golden["t_diffusion"], golden["y"])
    for term in ("mse", "vb", "loss"):
        agree(losses[term], golden[f"dit/loss_{term}"], 1e-5)


def test_the_posterior(golden, dit, diffusion):
    x, t = golden["dit/q_sample"], golden["t_diffusion"]
    p = diffusion.chain(x.device).p_posterior(dit(x, t, golden["y"]), x, t)
    agree(p.mean, golden["dit/p_mean"], 1e-5)
    agree(p.log_variance, golden["dit/p_log_variance"], 1e-5)
    agree(p.log_variance.exp(), golden["dit/p_variance"], 1e-5)
    agree(p.x0, golden["dit/p_pred_xstart"], 1e-5)


def test_ddim(golden, dit, diffusion):
    sampling = Sampling(guidance=1, diffusion=DiffusionSampler(name="ddim", steps=10))
    agree(diffusion.sample(dit, golden["noise"], golden["y"], sampling, NO_NOISE), golden["dit/ddim10"], 1e-4)


@pytest.mark.parametrize("official", INTERPOLANTS)
def test_the_interpolant_and_its_loss(golden, sit, official):
    flow = make_process(Flow(interpolant=INTERPOLANTS[official]))
    x, noise, t = golden["x"], golden["noise"], golden["t_flow"]
    agree(flow.add_noise(x, noise, t), golden[f"sit/{official}/xt"], 1e-5)
    agree(flow.velocity(x, noise, t), golden[f"sit/{official}/ut"], 1e-5)
    agree(flow.losses(sit, x, noise, t, golden["y"])["loss"], golden[f"sit/{official}/loss"], 1e-5)


@pytest.mark.parametrize(
    ("key", "sampler", "tolerance"),
    [  # the golden's number counts grid points: one more than steps
        ("euler_10", FlowSampler(name="euler", steps=9), 1e-4),
        ("heun2_6", FlowSampler(name="heun", steps=5), 1e-4),
        ("dopri5_5", FlowSampler(name="dopri5", atol=1e-6, rtol=1e-3), 2e-3),
    ],
)
@pytest.mark.parametrize("official", INTERPOLANTS)
def test_the_ode_samplers(golden, sit, official, key, sampler, tolerance):
    flow = make_process(Flow(interpolant=INTERPOLANTS[official]))
    samples = flow.sample(sit, golden["noise"], golden["y"], Sampling(guidance=1, flow=sampler), NO_NOISE)
    agree(samples, golden[f"sit/{official}/ode_{key}"], tolerance)


def test_the_neural_tangent_kernel(golden, dit):
    model = copy.deepcopy(dit).double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name != "pos_embed")
    probes = torch.ones(1, *golden["dit/out"].shape[1:])
    grams = GramMatrices(golden["x"].double(), golden["t_diffusion"], golden["y"], probes)
    take_gradients(model, [range(len(model.blocks))], grams)
    result = condition(grams.gram(0))
    assert result.gram.dtype == torch.float64
    agree(result.gram, golden["ntk/gram"], 1e-5)
    agree(torch.tensor(result.kappa), golden["ntk/kappa"], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zico(golden, dtype):
    layers = {key: layer_ratios(found.to(dtype)) for key, found in golden.items() if key.startswith("zico/grad/")}
    assert len(layers) == 4
    agree(torch.tensor(zico_value(layers, "sum").value), golden["zico/value"], 1e-6)
