"""CED: analytic on a network with known Gaussian output, and the prefix cache changes no number."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scoring_context import PROCESSES, KnownNetwork, context, gaussian_entropy, images, network, predictions
from torch import Tensor, nn

from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.models.surgery import drop_blocks
from entpruner.params.backbones import Diffusion, ProcessSettings
from entpruner.process.diffusion import GaussianDiffusion
from entpruner.scores import Scores, score
from entpruner.scores.entropy import random_subspaces
from entpruner.system.randomness import generator

ESTIMATORS = ["scalar", "diagonal", "low_rank", "knn"]

# ------------------------------------------------------------------------------------------------ a Gaussian network


class PureNoise(GaussianDiffusion):
    """A process whose x_t is standard Gaussian noise alone, so that what leaves a linear network is Gaussian."""

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise


Block = Callable[[Tensor, Tensor], Tensor]


def amplified(early: float, late: float) -> Block:
    """A block that multiplies its tokens: by ``early`` in the first half of the chain, by ``late`` in the second."""
    return lambda x, c: x * torch.where(c < 50, early, late)[:, None, None, None]


def addition(scale: float, shift: int) -> Block:
    """A block that adds ``scale`` times Gaussians of its own, from the lower half of x_t, to the upper half."""

    def added(x: Tensor, c: Tensor) -> Tensor:
        upper, lower = x.chunk(2, dim=2)
        return torch.cat([upper + scale * lower.roll(shift, dims=2), lower], dim=2)

    return added


class LinearNetwork(KnownNetwork):
    """Any blocks, between an embedding and a head that do nothing; the output is the upper half of the tokens."""

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, t

    def head(self, tokens: Tensor, c: Tensor) -> Tensor:
        prediction = tokens[:, :, :4]  # (B, 1, 4, 8)
        return torch.cat([prediction, torch.zeros_like(prediction)], dim=1)


def scored(*blocks: Block, **settings: object) -> Scores:
    settings = {"draws": 512, "batch_size": 128, **settings}
    return score("ced", context(PureNoise(Diffusion(timesteps=100)), LinearNetwork(*blocks), **settings))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("reduction", ["pooled", "timestep", "class"])
def test_a_gain_moves_the_entropy_by_its_logarithm(estimator: str, reduction: str) -> None:
    gains = (2.0, 0.5, 1.0, 3.0)  # 2 and 0.5 tie in |log|, in opposite directions
    scores = scored(*(amplified(gain, gain) for gain in gains), estimator=estimator, reduction=reduction)
    # The same draws with and without the block: what is left of the sampling error is rounding.
    assert scores.signed == pytest.approx([-math.log(gain) for gain in gains], abs=1e-6)
    assert scores.value == pytest.approx([abs(math.log(gain)) for gain in gains], abs=1e-6)
    assert scores.stderr == pytest.approx([0] * 4, abs=1e-6)
    # 512 draws of 32 Gaussian numbers. A fit's bias is half a free parameter a draw: 1/2n in H with a mean and a
    # variance by coordinate, 17/2n with 16 directions. Distances of neighbours also scatter more: 0.4 by projection.
    n = 512 if reduction == "pooled" else 512 / (4 if reduction == "timestep" else 3)
    bias = {"scalar": 0, "diagonal": 1 / n, "low_rank": 17 / 2 / n, "knn": 0.02}[estimator]
    scatter = 0.4 if estimator == "knn" else 1 / math.sqrt(2 * 32)
    for h in scores.unpruned[reduction]:
        assert h == pytest.approx(gaussian_entropy(math.prod(gains)), abs=4 * scatter / math.sqrt(n) + bias)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_contributions_are_found_within_the_stated_error(estimator: str) -> None:
    """Every number of the output is Gaussian with the same variance, and rows are correlated."""
    scales = (0.3, 1.0, 2.0)
    blocks = [addition(scale, shift) for shift, scale in enumerate(scales)]
    scores = scored(*blocks, estimator=estimator, rank=31)
    bases = random_subspaces(8, 32, 4, generator(0, "scores/test", "projections"))

    def analytic(scales: dict[int, float]) -> float:
        mix = sum(scale * torch.eye(32).double().roll(8 * shift, dims=0) for shift, scale in scales.items())
        covariance = torch.eye(32).double() + mix @ mix.T
        if estimator in ("scalar", "diagonal"):  # blind to correlations
            return gaussian_entropy(math.sqrt(1 + sum(scale**2 for scale in scales.values())))
        seen = bases.mT @ covariance @ bases if estimator == "knn" else covariance[None]  # rank 31 of 32: all of it
        return (torch.logdet(2 * math.pi * math.e * seen).mean() / 2 / seen.shape[1]).item()

    present = dict(enumerate(scales))
    assert scores.unpruned["pooled"][0] == pytest.approx(analytic(present), abs=0.05)
    for block, signed, stderr in zip(range(3), scores.signed, scores.stderr, strict=True):
        without = {shift: scale for shift, scale in present.items() if shift != block}
        assert signed == pytest.approx(analytic(without) - analytic(present), abs=3 * stderr)
        assert 0 < stderr < 0.05
    assert scores.order == (0, 1, 2)


def test_entropies_by_timestep_bin_and_pooled_over_unequal_bins() -> None:
    scores = scored(amplified(4.0, 1.0), amplified(1.0, 1.0))
    early, late = -math.log(4), 0.0
    assert scores.per_timestep[0] == pytest.approx([early, early, late, late], abs=1e-6)
    # Pooled, the two halves are one Gaussian of variance (16 + 1) / 2.
    expected = gaussian_entropy(1) - 0.5 * math.log(2 * math.pi * math.e * 8.5)
    assert scores.pooled[0] == pytest.approx(expected, abs=4 * scores.stderr[0])
    assert scores.stderr[0] < 0.05
    assert scored(amplified(4.0, 1.0), reduction="timestep").value[0] == pytest.approx(math.log(4) / 2, abs=1e-6)


def test_opposite_changes_do_not_cancel_in_the_mean_over_bins() -> None:
    scores = scored(amplified(2.0, 0.5), reduction="timestep")
    assert scores.signed[0] == pytest.approx(0, abs=1e-6)
    assert scores.value[0] == pytest.approx(math.log(2), abs=1e-6)


def test_a_network_without_spread_is_floored_and_said_so() -> None:
    # Floored are the whole network's variances, and those without the second block: one, or one in every direction, or
    # one of every draw in every projection.
    for estimator, floored in {"scalar": 2, "low_rank": 2 * 32, "knn": 2 * 3 * 512}.items():
        scores = scored(amplified(0.0, 0.0), amplified(2.0, 2.0), estimator=estimator, projections=3)
        assert scores.floored == floored
        assert all(math.isfinite(value) for value in scores.value)


# ---------------------------------------------------------------------------------------------------- the prefix cache


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("kept", [None, (0, 2, 3)])
def test_outputs_are_those_of_dropping_each_block(process: ProcessSettings, kept: tuple[int, ...] | None) -> None:
    model = network(kept)
    batch = next(context(process, model).draws())
    inputs = batch.x_t, batch.t, batch.y
    with torch.no_grad():
        for position, output in model.removals(*inputs):
            by_hand = model if position is None else drop_blocks(model, {model.kept_blocks[position]})
            assert torch.equal(output, by_hand(*inputs))


def test_dropping_block_i_runs_only_the_blocks_behind_it() -> None:
    model = network()
    evaluations, conditions = [], []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda *_: evaluations.append(1))
        block.adaLN_modulation.register_forward_hook(lambda *_: conditions.append(1))
    batch = next(context(model=model).draws())
    list(model.removals(*batch.inputs))
    depth = len(model.blocks)
    assert len(evaluations) == depth + depth * (depth - 1) / 2
    assert len(conditions) == depth  # the removals share the condition


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scores_are_those_of_dropping_each_block_by_hand(process: ProcessSettings, estimator: str) -> None:
    case = context(process, estimator=estimator, rank=3, projections=2, dimensions=3, neighbours=2)
    scores = score("ced", case)
    bases = random_subspaces(2, 64, 3, generator(case.seed, case.artefact, "projections"))

    def h(x: Tensor) -> float:
        n = len(x)
        if estimator == "knn":
            points = (x @ bases).numpy()  # (2, n, 3)
            distance = np.sort(np.linalg.norm(points[:, :, None] - points[:, None], axis=3))[:, :, 2]
            ball = math.log(4 / 3 * math.pi) + sum(1 / j for j in range(2, n))  # log V + ψ(n) - ψ(2)
            return (3 * np.log(distance).mean() + ball) / 3
        if estimator == "low_rank":
            largest_first = torch.linalg.svdvals(x - x.mean(0)).square() / n  # 64 - n of 64 are 0 and missing
            sigma2 = torch.cat([largest_first[:3], (largest_first[3:].sum() / 61).expand(61)])
        else:
            sigma2 = x.var(None if estimator == "scalar" else 0, correction=0)
        return (0.5 * torch.log(2 * math.pi * math.e * sigma2)).mean().item()

    def entropies(model: nn.Module) -> tuple[float, list[float], list[float]]:
        """Pooled, by bin and by class, from all outputs at once."""
        batches, x = list(case.draws()), predictions(case, model).double().flatten(1)
        bins = torch.cat([case.bins(b.t) for b in batches])
        classes = torch.cat([b.y for b in batches])
        return h(x), [h(x[bins == b]) for b in range(4)], [h(x[classes == c]) for c in range(3)]

    whole = entropies(case.model)
    assert scores.unpruned["pooled"] == pytest.approx(whole[:1])
    for i, block in enumerate(scores.blocks):
        pruned = entropies(drop_blocks(case.model, {block}))
        assert scores.signed[i] == pytest.approx(pruned[0] - whole[0], abs=1e-9)
        for ours, there, here in zip((scores.per_timestep, scores.per_class), pruned[1:], whole[1:], strict=True):
            assert ours[i] == pytest.approx([a - b for a, b in zip(there, here, strict=True)], abs=1e-9)


def test_draws_are_stratified_and_cover_the_images() -> None:
    case = context(draws=100)  # of 40 images: two passes and a half
    batches = list(case.draws())
    group = torch.cat([b.group for b in batches])[torch.cat([b.t for b in batches]).argsort()]
    assert case.groups == 32 and group.bincount().tolist() == [4] * 4 + [3] * 28
    assert (group[0::2] // 2).tolist() == (group[1::2] // 2).tolist()  # neighbouring times are in groups 2j and 2j + 1
    assert torch.cat([b.t for b in batches]).sort().values.tolist() == list(range(100))  # one in each of 100 strata
    seen = torch.cat([b.x for b in batches]).flatten(1)
    every = images().batch(torch.arange(40))[0].flatten(1)
    times_seen = (seen[:, None] == every).all(2).sum(0)
    assert set(times_seen.tolist()) == {2, 3}


@pytest.mark.parametrize("process", PROCESSES)
def test_the_stated_error_is_the_spread_over_independent_draws(process: ProcessSettings) -> None:
    """50 draws of everything: images of a set that each draw takes a small part of, times and noise."""
    pixels = np.random.default_rng(2).integers(0, 256, (20_000, 1, 8, 8), dtype=np.uint8)
    many = ImageSet(pixels, np.arange(20_000, dtype=np.int64) % 3, 3)
    cases = [dataclasses.replace(context(process, draws=128, batch_size=128), images=many, seed=s) for s in range(50)]
    found = [score("ced", case) for case in cases]
    spread = np.std([scores.signed for scores in found], axis=0, ddof=1)
    stated = np.sqrt(np.mean(np.square([scores.stderr for scores in found]), axis=0))
    assert np.exp(np.log(stated / spread).mean()) == pytest.approx(1, abs=0.2)  # over the four blocks
    assert stated / spread == pytest.approx(1, abs=0.35)  # each block's spread is known to 10 %


def test_one_draw_has_no_standard_error() -> None:
    assert score("ced", context(draws=1)).stderr == (None,) * 4


@pytest.mark.parametrize(("estimator", "others"), [("scalar", 0), ("low_rank", 2), ("knn", 2)])
def test_a_class_with_too_few_draws_for_the_estimator_has_no_say(estimator: str, others: int) -> None:
    """48 draws of 40 images, of which ``others`` are of each class but one: each of them is drawn at most twice."""
    case = context(estimator=estimator, reduction="class", rank=5, neighbours=5)
    labels = np.ones_like(case.images.labels)
    labels[:others], labels[others : 2 * others] = 0, 2
    scores = score("ced", dataclasses.replace(case, images=dataclasses.replace(case.images, labels=labels)))
    assert scores.per_class[0][0] is None and scores.per_class[0][2] is None
    assert scores.value[0] == pytest.approx(abs(scores.per_class[0][1]))
    assert scores.stderr[0] > 0
    assert Scores.from_json(scores.to_json()) == scores


@pytest.mark.parametrize("settings", [{"estimator": "low_rank", "rank": 11}, {"estimator": "knn", "neighbours": 12}])
def test_too_few_draws_in_every_bin_is_an_error_that_says_so(settings: dict) -> None:
    few = r"scoring.draws: 48 draws, reduced by timestep, are too few .* draw more"
    with pytest.raises(UserError, match=few):
        score("ced", context(reduction="timestep", **settings))  # 12 a bin
    assert score("ced", context(**settings)).per_timestep == ((None,) * 4,) * 4
