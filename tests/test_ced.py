"""CED: analytic on a network with known Gaussian output, and the prefix cache changes no number."""

import dataclasses
import math

import pytest
import torch
from scoring_context import PROCESSES, context, images, network
from torch import Tensor, nn

from entpruner.models.surgery import drop_blocks
from entpruner.params import Diffusion, ProcessSettings
from entpruner.process.diffusion import GaussianDiffusion
from entpruner.scores import Scores, score
from entpruner.scores.context import draws, timestep_bins
from entpruner.scores.prefix import removal_outputs

# ------------------------------------------------------------------------------------------------ a Gaussian network


class PureNoise(GaussianDiffusion):
    """A process whose x_t is standard Gaussian noise alone, so that what leaves a linear network is Gaussian."""

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise


class Gain(nn.Module):
    """A block that multiplies its tokens: by ``early`` in the first half of the chain, by ``late`` in the second."""

    def __init__(self, early: float, late: float) -> None:
        super().__init__()
        self.early, self.late = early, late

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x * torch.where(c < 50, self.early, self.late)[:, None, None, None]


class Addition(nn.Module):
    """A block that adds ``scale`` times Gaussians of its own, from the lower half of x_t, to the upper half."""

    def __init__(self, scale: float, shift: int) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        upper, lower = x.chunk(2, dim=2)
        return torch.cat([upper + self.scale * lower.roll(self.shift, dims=2), lower], dim=2)


class LinearNetwork(nn.Module):
    """The parts of a Transformer that scoring uses, around any blocks; the output is the upper half of the tokens."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.kept_blocks = tuple(range(len(blocks)))

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, t

    def head(self, tokens: Tensor, c: Tensor) -> Tensor:
        prediction = tokens[:, :, :4]  # (B, 1, 4, 8)
        return torch.cat([prediction, torch.zeros_like(prediction)], dim=1)


def scored(*blocks: nn.Module, **settings: object) -> Scores:
    settings = {"draws": 512, "batch_size": 128, **settings}
    base = context(model=LinearNetwork(*blocks), **settings)
    return score("ced", dataclasses.replace(base, process=PureNoise(Diffusion(timesteps=100))))


def gaussian_entropy(sigma: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * sigma**2)


@pytest.mark.parametrize("estimator", ["scalar", "diagonal"])
@pytest.mark.parametrize("reduction", ["pooled", "timestep", "class"])
def test_a_gain_moves_the_entropy_by_its_logarithm(estimator: str, reduction: str) -> None:
    gains = (2.0, 0.5, 1.0, 3.0)  # 2 and 0.5 tie in |log|, in opposite directions
    scores = scored(*(Gain(gain, gain) for gain in gains), estimator=estimator, reduction=reduction)
    # The same draws with and without the block: what is left of the sampling error is rounding.
    assert scores.signed == pytest.approx([-math.log(gain) for gain in gains], abs=1e-6)
    assert scores.value == pytest.approx([abs(math.log(gain)) for gain in gains], abs=1e-6)
    assert scores.stderr == pytest.approx([0] * 4, abs=1e-6)
    # 512 draws of 32 Gaussian numbers; fitted by coordinate, a variance also has a bias of 1/n: -1/2n in H.
    n = 512 if reduction == "pooled" else 512 / (4 if reduction == "timestep" else 3)
    bias = 1 / n if estimator == "diagonal" else 0
    for h in scores.unpruned[reduction]:
        assert h == pytest.approx(gaussian_entropy(math.prod(gains)), abs=4 / math.sqrt(2 * n * 32) + bias)


def test_independent_contributions_are_found_within_the_stated_error() -> None:
    scales = (0.3, 1.0, 2.0)
    scores = scored(*(Addition(scale, shift) for shift, scale in enumerate(scales)))
    total = 1 + sum(scale**2 for scale in scales)
    assert scores.unpruned["pooled"][0] == pytest.approx(gaussian_entropy(math.sqrt(total)), abs=0.05)
    for scale, signed, stderr in zip(scales, scores.signed, scores.stderr, strict=True):
        assert signed == pytest.approx(0.5 * math.log((total - scale**2) / total), abs=3 * stderr)
        assert 0 < stderr < 0.02
    assert scores.order == (0, 1, 2)


def test_entropies_by_timestep_bin_and_pooled_over_unequal_bins() -> None:
    scores = scored(Gain(4.0, 1.0), Gain(1.0, 1.0))
    early, late = -math.log(4), 0.0
    assert scores.per_timestep[0] == pytest.approx([early, early, late, late], abs=1e-6)
    # Pooled, the two halves are one Gaussian of variance (16 + 1) / 2.
    expected = gaussian_entropy(1) - 0.5 * math.log(2 * math.pi * math.e * 8.5)
    assert scores.pooled[0] == pytest.approx(expected, abs=4 * scores.stderr[0])
    assert scores.stderr[0] < 0.05
    assert scored(Gain(4.0, 1.0), reduction="timestep").value[0] == pytest.approx(math.log(4) / 2, abs=1e-6)


def test_opposite_changes_do_not_cancel_in_the_mean_over_bins() -> None:
    scores = scored(Gain(2.0, 0.5), reduction="timestep")
    assert scores.signed[0] == pytest.approx(0, abs=1e-6)
    assert scores.value[0] == pytest.approx(math.log(2), abs=1e-6)


def test_a_network_without_spread_is_floored_and_said_so() -> None:
    scores = scored(Gain(0.0, 0.0), Gain(2.0, 2.0))
    assert scores.floored == 2  # the whole network's variance, and that without the second block
    assert all(math.isfinite(value) for value in scores.value)


# ---------------------------------------------------------------------------------------------------- the prefix cache


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("kept", [None, (0, 2, 3)])
def test_outputs_are_those_of_dropping_each_block(process: ProcessSettings, kept: tuple[int, ...] | None) -> None:
    model = network(kept)
    batch = next(draws(context(process, model)))
    inputs = batch.x_t, batch.t, batch.y
    with torch.no_grad():
        for position, output in removal_outputs(model, *inputs):
            by_hand = model if position is None else drop_blocks(model, {model.kept_blocks[position]})
            assert torch.equal(output, by_hand(*inputs))


def test_dropping_block_i_runs_only_the_blocks_behind_it() -> None:
    model = network()
    evaluations = []
    for block in model.blocks:
        block.register_forward_hook(lambda *_: evaluations.append(1))
    batch = next(draws(context(model=model)))
    list(removal_outputs(model, batch.x_t, batch.t, batch.y))
    depth = len(model.blocks)
    assert len(evaluations) == depth + depth * (depth - 1) / 2


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("estimator", ["scalar", "diagonal"])
def test_scores_are_those_of_dropping_each_block_by_hand(process: ProcessSettings, estimator: str) -> None:
    case = context(process, estimator=estimator)
    scores = score("ced", case)

    def entropies(model: nn.Module) -> tuple[float, list[float], list[float]]:
        """Pooled, by bin and by class, from all outputs at once."""
        batches = list(draws(case))
        with torch.no_grad():
            x = torch.cat([case.process.prediction(model(b.x_t, b.t, b.y)) for b in batches]).double().flatten(1)
        bins = torch.cat([timestep_bins(case, b.t) for b in batches])
        classes = torch.cat([b.y for b in batches])

        def h(x: Tensor) -> float:
            sigma2 = x.var(None if estimator == "scalar" else 0, correction=0)
            return (0.5 * torch.log(2 * math.pi * math.e * sigma2)).mean().item()

        return h(x), [h(x[bins == b]) for b in range(4)], [h(x[classes == c]) for c in range(3)]

    whole = entropies(case.model)
    assert scores.unpruned["pooled"] == pytest.approx(whole[:1])
    for i, block in enumerate(scores.blocks):
        pruned = entropies(drop_blocks(case.model, {block}))
        assert scores.signed[i] == pytest.approx(pruned[0] - whole[0], abs=1e-9)
        for ours, there, here in zip((scores.per_timestep, scores.per_class), pruned[1:], whole[1:], strict=True):
            assert ours[i] == pytest.approx([a - b for a, b in zip(there, here, strict=True)], abs=1e-9)


def test_the_batch_size_changes_no_score() -> None:
    one, other = (score("ced", context(batch_size=size)) for size in (48, 11))
    assert one.value == pytest.approx(other.value, abs=1e-6)
    assert one.stderr == pytest.approx(other.stderr, abs=1e-6)


def test_draws_are_stratified_and_cover_the_images() -> None:
    case = context(draws=100)  # of 40 images: two passes and a half
    batches = list(draws(case))
    assert torch.cat([b.index for b in batches]).tolist() == list(range(100))
    assert torch.cat([b.t for b in batches]).sort().values.tolist() == list(range(100))  # one in each of 100 strata
    seen = torch.cat([b.x for b in batches]).flatten(1)
    every = images().batch(torch.arange(40))[0].flatten(1)
    times_seen = (seen[:, None] == every).all(2).sum(0)
    assert set(times_seen.tolist()) == {2, 3}


def test_a_class_without_draws_has_no_entropy_and_no_say() -> None:
    case = context(draws=4, reduction="class")
    labels = case.images.labels.copy()
    labels[:] = 1
    scores = score("ced", dataclasses.replace(case, images=dataclasses.replace(case.images, labels=labels)))
    assert scores.per_class[0][0] is None and scores.per_class[0][2] is None
    assert scores.value[0] == pytest.approx(abs(scores.per_class[0][1]))
    assert Scores.from_json(scores.to_json()) == scores


def test_one_draw_has_no_standard_error() -> None:
    assert score("ced", context(draws=1)).stderr == (None,) * 4
