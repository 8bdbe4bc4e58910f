"""NTK and ZiCo: a plain loop over samples, and honest failures; test_reference_parity.py holds their golden numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scoring_context import PROCESSES, images, network
from torch import Tensor, nn

from entpruner.errors import UserError
from entpruner.models.surgery import drop_blocks
from entpruner.params.backbones import ProcessSettings
from entpruner.params.proxies import Ntk, Proxies, Zico
from entpruner.process import make_process
from entpruner.proxies import ntk, per_sample, zico
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.proxies.ntk import GramMatrices, condition
from entpruner.proxies.per_sample import LayerGradients, Proxy, layers_with_weights, recorded_calls, take_gradients
from entpruner.proxies.zico import LossGradients, layer_ratios, zico_value


def inputs(process: ProcessSettings, n: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, noise, t, y in float64."""
    random = torch.Generator().manual_seed(3)
    x, y = images().batch(torch.arange(n))
    t = make_process(process).draw_times(n, random, stratified=True)
    return x.double(), torch.randn(x.shape, generator=random).double(), t, y


def loop_over_samples(model: nn.Module, x_t: Tensor, t: Tensor, y: Tensor, probe: Tensor) -> Tensor:
    """Per-sample gradients of every trainable parameter with "weight" in its name, the slow way: (N, P)."""
    weights = [p for name, p in model.named_parameters() if p.requires_grad and "weight" in name]
    rows = []
    for n in range(len(x_t)):
        f = (probe * model(x_t[n : n + 1], t[n : n + 1], y[n : n + 1])).sum()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(f, weights)]))
    return torch.stack(rows)


# ------------------------------------------------------------------------------------------------------------------ NTK


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("functional", ["prediction", "all_outputs", "projection"])
def test_ntk_is_that_of_a_loop_over_samples(process: ProcessSettings, functional: str) -> None:
    model, settings = network().double(), Ntk(functional=functional, projections=2)
    x, noise, t, y = inputs(process)
    result = ntk(model, make_process(process), x, noise, t, y, settings, torch.Generator().manual_seed(5))

    predicted = torch.cat([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)])
    if functional == "all_outputs":
        probes = [torch.ones(2, 8, 8)]
    elif functional == "prediction":
        probes = [predicted]
    else:  # one draw of signs after another
        signs = torch.randint(2, (2, 2, 8, 8), generator=torch.Generator().manual_seed(5)) * 2 - 1
        probes = [predicted * sign for sign in signs]
    x_t = make_process(process).add_noise(x, noise, t)
    rows = [loop_over_samples(model, x_t, t, y, probe.double()) for probe in probes]
    gram = torch.stack([g @ g.T for g in rows]).mean(0)
    assert torch.allclose(result.gram, gram, rtol=1e-9, atol=1e-12 * gram.max().item())
    eigenvalues = torch.linalg.eigvalsh(gram)
    assert result.kappa == pytest.approx((eigenvalues[-1] / eigenvalues[0]).item(), rel=1e-6)
    assert result.log10_kappa == pytest.approx(math.log10(result.kappa))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_ntk_does_not_see_what_the_process_does_not_predict(process: ProcessSettings) -> None:
    """Other weights in the head for the second half of the output change κ of all outputs, and nothing else."""
    x, noise, t, y = inputs(process)

    def kappa(model: nn.Module, settings: Ntk) -> float | None:
        return ntk(model, make_process(process), x, noise, t, y, settings, torch.Generator()).kappa

    model, other = network().double(), network().double()
    with torch.no_grad():
        head = other.final_layer.linear
        head.weight.view(-1, 2, head.in_features)[:, 1] *= 7  # the rows of a patch are (pixels, 2C)
    assert kappa(model, Ntk()) == kappa(other, Ntk())
    assert kappa(model, Ntk(functional="all_outputs")) != kappa(other, Ntk(functional="all_outputs"))


class Sums(Proxy):
    """The per-sample weight gradients of every layer of every candidate, of the sum of the outputs."""

    def __init__(self, *inputs: Tensor) -> None:
        self.inputs = inputs
        self.found: dict[int, dict[str, Tensor]] = {}

    def at_output(self, output: Tensor) -> Tensor:
        return torch.ones_like(output)

    def take(self, candidate: int, gradients: LayerGradients) -> None:
        self.found.setdefault(candidate, {})[gradients.name] = gradients.d.mT @ gradients.a


@pytest.mark.parametrize("kept", [0, per_sample.KEPT], ids=["again", "kept"])
def test_each_candidate_has_its_own_gradients_and_nothing_is_left_behind(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_sample, "KEPT", kept)
    model = network().double()
    x, _, t, y = inputs(PROCESSES[0])
    candidates = [(0, 1, 2, 3), (0, 1, 3), (0, 3), (0, 1, 3), (1, 2, 3)]  # they part at several places, or nowhere
    first, second = Sums(x[:2], t[:2], y[:2]), Sums(x[2:], t[2:], y[2:])  # two proxies share a pass
    take_gradients(model, candidates, first, second)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())

    for number, blocks in enumerate(candidates):
        pruned = drop_blocks(model, set(range(4)) - set(blocks))
        pruned(x, t, y).sum().backward()  # the batch's gradient, which the samples' must add up to
        assert len(first.found[number]) == len(layers_with_weights(pruned))
        for name, of_first in first.found[number].items():
            total = of_first.sum(0) + second.found[number][name].sum(0)
            total = total.T if "embedding_table" in name else total  # an embedding's factors are the other way round
            own = name if not name.startswith("blocks.") else renamed(name, blocks)
            assert torch.allclose(total.flatten(), pruned.get_submodule(own).weight.grad.flatten(), rtol=1e-9), name


def renamed(name: str, kept: tuple[int, ...]) -> str:
    """The name of a block's layer in the network that has only the blocks ``kept``."""
    _, block, layer = name.split(".", 2)
    return f"blocks.{kept.index(int(block))}.{layer}"


def test_both_ways_of_a_gram_matrix_agree() -> None:
    random = torch.Generator().manual_seed(0)
    grams = GramMatrices(torch.zeros(5, 1, 8, 8), torch.zeros(5), torch.zeros(5), torch.ones(1, 2, 8, 8))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for tokens, width in ((1, 8), (2, 64), (64, 4)):  # few tokens for wide layers, many for narrow ones
        a, d = (torch.randn(5, tokens, width, generator=random) for _ in range(2))
        grams.take(0, LayerGradients("layer", nn.Linear(width, width), a, d))
        g = (d.double().mT @ a.double()).flatten(1)
        expected += g @ g.T
    assert {positions for _, positions in grams.sums} == {1, 2}
    torch.testing.assert_close(grams.gram(0), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("functional", ["prediction", "projection"])
def test_candidates_of_a_vote_measured_in_one_go_are_those_measured_alone(functional: str) -> None:
    model, process = network(), make_process(PROCESSES[0])
    settings = Proxies(ntk=Ntk(samples=5, functional=functional, projections=2), zico=Zico(batch_size=4))
    samples = ProxySamples(process, images(), 0, "test", torch.device("cpu"))
    measure = measure_on(model, process, samples, settings)
    for dropped, (grams, losses) in zip([(), (2,), (2, 1)], measure([(), (2,), (2, 1)]), strict=True):
        pruned = drop_blocks(model, dropped)
        alone = ntk(pruned, process, *samples.ntk(5), settings.ntk, samples.signs())
        assert grams.kappa == pytest.approx(alone.kappa, rel=1e-4)
        assert losses.value == pytest.approx(zico(pruned, process, samples.zico(settings.zico), settings.zico).value)


def test_hooks_are_removed_after_an_error() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="stop"), recorded_calls(model):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_weights_are_left_out() -> None:
    model = network()
    model.blocks.requires_grad_(False)
    assert set(layers_with_weights(model)) == {
        "x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "y_embedder.embedding_table",
        "final_layer.linear", "final_layer.adaLN_modulation.1",
    }  # fmt: skip


def test_a_weight_of_an_unknown_kind_is_not_passed_over() -> None:
    with pytest.raises(TypeError, match=r"0\.weight \(LayerNorm\)"):
        layers_with_weights(nn.Sequential(nn.LayerNorm(4)))


def test_two_equal_samples_are_rank_deficient() -> None:
    model, process = network(), make_process(PROCESSES[0])
    x, noise, t, y = inputs(PROCESSES[0])
    random = torch.Generator()
    x, noise = x.float(), noise.float()
    good = ntk(model, process, x, noise, t, y, Ntk(), random)
    twice = [torch.cat([part, part[:1]]) for part in (x, noise, t, y)]
    bad = ntk(model, process, *twice, Ntk(), random)
    assert bad.rank_deficient and bad.kappa is None and bad.log10_kappa is None
    assert not good.rank_deficient


@given(st.lists(st.floats(-1e-6, 1e6), min_size=2, max_size=5))
def test_kappa_is_never_negative_or_infinite(diagonal: list[float]) -> None:
    result = condition(torch.diag(torch.tensor(diagonal, dtype=torch.float64)))
    assert result.rank_deficient == (result.kappa is None)
    assert result.kappa is None or 1 <= result.kappa < math.inf


def test_gradients_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(UserError, match=r"ntk: .*not finite"):
        condition(torch.full((2, 2), math.nan, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------------------- ZiCo


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_zico_is_that_of_stored_gradients(process: ProcessSettings) -> None:
    model, physics = network(), make_process(process)
    random = torch.Generator().manual_seed(7)
    batches = []
    for b in range(8):
        x, y = images().batch(torch.arange(4) + 4 * b)
        t = physics.draw_times(4, random, stratified=True)
        batches.append((x, torch.randn(x.shape, generator=random), t, y))
    weights = {
        name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    stored: dict[str, list[np.ndarray]] = {name: [] for name in weights}
    for batch in batches:
        model.zero_grad()
        physics.losses(model, *batch)["loss"].mean().backward()
        for name, weight in weights.items():
            stored[name].append(weight.grad.double().flatten().numpy())
    model.zero_grad()
    sums, means = {}, {}
    for name, gradients in stored.items():
        g = np.stack(gradients)
        std = g.std(0)
        ratios = (np.abs(g).mean(0)[std > 0]) / std[std > 0]
        sums[name], means[name] = math.log(ratios.sum()), math.log(ratios.mean())

    published = zico(model, physics, batches, Zico())
    assert published.per_layer == pytest.approx(sums, rel=1e-4)
    assert published.value == pytest.approx(sum(sums.values()), rel=1e-5)
    mean = zico(model, physics, iter(batches), Zico(reduction="mean"))
    assert mean.value == pytest.approx(np.mean(list(means.values())), rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_spread_that_is_only_rounding_is_left_out() -> None:
    random = torch.Generator().manual_seed(0)
    varying = torch.randn(8, 100, generator=random)
    constant = torch.full((8, 100), 0.1)
    jittered = constant * (1 + 1e-7 * torch.randint(-1, 2, constant.shape, generator=random))
    alone = zico_value({"layer": layer_ratios(varying)}, "sum").value
    for extra in (constant, jittered, torch.zeros(8, 100)):
        assert zico_value({"layer": layer_ratios(torch.cat([varying, extra], dim=1))}, "sum").value == pytest.approx(
            alone
        )


def test_a_large_mean_does_not_cancel_the_spread() -> None:
    spread = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0))
    gradients = 1000 + spread  # in float32 the spread of Σg² - (Σg)²/D would be lost
    exact = (gradients.double().mean(0) / gradients.double().std(0, correction=0)).sum().log().item()
    assert zico_value({"layer": layer_ratios(gradients)}, "sum").value == pytest.approx(exact, rel=1e-4)


def test_a_layer_without_signal_is_skipped_and_a_network_without_is_an_error() -> None:
    varying = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    both = zico_value({"dead": layer_ratios(torch.zeros(8, 10)), "live": layer_ratios(varying)}, "mean")
    assert both == zico_value({"live": layer_ratios(varying)}, "mean")
    with pytest.raises(UserError, match="no gradient varies"):
        zico_value({"dead": layer_ratios(torch.zeros(8, 10))}, "sum")
    with pytest.raises(UserError, match="layer are not finite"):
        zico_value({"layer": layer_ratios(torch.full((8, 10), math.inf))}, "sum")


def test_zico_of_the_first_batches_is_that_of_these_alone() -> None:
    model, process = network(), make_process(PROCESSES[0])
    drawn = ProxySamples(process, images(), 0, "test", torch.device("cpu"))
    batches = list(drawn.zico(Zico(batches=12, batch_size=2)))
    losses = LossGradients(process, batches, (8, 12))
    take_gradients(model, [range(4)], losses)
    for count in (8, 12):
        alone = zico(model, process, batches[:count], Zico(batches=count))
        assert losses.result(0, "sum", count).per_layer == pytest.approx(alone.per_layer, rel=1e-5)


def test_zico_wants_the_number_of_batches_that_its_settings_say() -> None:
    batch = [part.float() if part.is_floating_point() else part for part in inputs(PROCESSES[0], 2)]
    with pytest.raises(ValueError, match="given 3 batches, its settings say 8"):
        zico(network(), make_process(PROCESSES[0]), [tuple(batch)] * 3, Zico())
