"""The other criteria, the registry, and what a score looks like."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scoring_context import PROCESSES, context, network

from entpruner.errors import UserError
from entpruner.models.surgery import drop_blocks
from entpruner.params.backbones import ProcessSettings
from entpruner.params.criteria import CRITERIA
from entpruner.params.scoring import Scoring
from entpruner.scores import Scores, score
from entpruner.scores.context import draws


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_block_and_is_repeatable(criterion: str) -> None:
    scores = score(criterion, context())
    assert scores.criterion == criterion
    assert scores.blocks == (0, 1, 2, 3)
    assert len(scores.value) == len(scores.signed) == len(scores.stderr) == 4
    assert score(criterion, context()) == scores


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_pruned_network_is_scored_in_the_original_numbering(criterion: str) -> None:
    scores = score(criterion, context(model=network((1, 3))))
    assert scores.blocks == (1, 3)
    assert sorted(scores.order) == [1, 3]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_survive_json(criterion: str) -> None:
    scores = score(criterion, context())
    assert Scores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False))) == scores


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_order_is_ascending_and_ties_go_by_block(values: list[int]) -> None:
    blocks = tuple(range(0, 2 * len(values), 2))
    value = tuple(map(float, values))
    scores = Scores(
        criterion="random", blocks=blocks, value=value, signed=value, stderr=(0.0,) * len(value),
        draws=0, seed=0, settings=Scoring(),
    )  # fmt: skip
    keys = [(value[blocks.index(block)], block) for block in scores.order]
    assert keys == sorted(keys) and sorted(scores.order) == list(blocks)


def test_an_unknown_criterion_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=rf"'cde'.*{', '.join(CRITERIA)}"):
        score("cde", context())


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"magnitude", "random", "every_other", "first", "last"}))
def test_a_network_of_nan_is_an_error_not_a_ranking(criterion: str) -> None:
    model = network()
    torch.nn.init.constant_(model.y_embedder.embedding_table.weight[1], float("nan"))  # one class of three
    for reduction in ("pooled", "timestep"):
        with pytest.raises(UserError, match=f"{criterion}: .*not finite"):
            score(criterion, context(model=model, reduction=reduction))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_sensitivity_is_the_rise_of_the_training_loss(process: ProcessSettings) -> None:
    case = context(process)
    scores = score("sensitivity", case)

    def losses(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            parts = [case.process.losses(model, b.x, b.noise, b.t, b.y)["loss"] for b in draws(case)]
        return torch.cat(parts).double()

    whole = losses(case.model)
    for i, block in enumerate(scores.blocks):
        rise = losses(drop_blocks(case.model, {block})) - whole
        assert scores.value[i] == pytest.approx(rise.mean().item(), abs=1e-6)
        assert scores.stderr[i] == pytest.approx(rise.std().item() / 48**0.5, rel=1e-4)
        # 48 draws stratified in t: 12 in each of 4 bins, so the bins' mean is the mean.
        assert sum(scores.per_timestep[i]) / 4 == pytest.approx(scores.value[i], abs=1e-9)


def norms(latents: torch.Tensor, others: torch.Tensor) -> float:
    """‖Δ mean‖ + ‖Δ std‖ over samples, element by element."""
    mean, std = latents.double().mean(0), latents.double().std(0, correction=0)
    return ((others.double().mean(0) - mean).norm() + (others.double().std(0, correction=0) - std).norm()).item()


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_ld_pruner_one_step_by_hand(process: ProcessSettings) -> None:
    case = context(process, ld_pruner="one_step")
    scores = score("ld_pruner", case)

    def latents(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([case.process.prediction(model(b.x_t, b.t, b.y)) for b in draws(case)])

    by_hand = [norms(latents(case.model), latents(drop_blocks(case.model, {block}))) for block in range(4)]
    assert scores.value == pytest.approx(by_hand, rel=1e-5)
    assert all(0 < error < value for error, value in zip(scores.stderr, scores.value, strict=True))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_ld_pruner_samples_every_network_from_the_same_noise(process: ProcessSettings) -> None:
    scores = score("ld_pruner", context(process, ld_pruner_samples=6, batch_size=4))
    assert scores.draws == 6
    assert all(value > 0 for value in scores.value)
    # A block that does nothing moves no latent, stochastic sampler or not: noise and labels are shared.
    model = network()
    idle = model.blocks[2].adaLN_modulation[1]
    torch.nn.init.zeros_(idle.weight)
    torch.nn.init.zeros_(idle.bias)
    assert score("ld_pruner", context(process, model)).value[2] == pytest.approx(0, abs=1e-5)


def test_random_is_a_permutation_that_the_seed_decides() -> None:
    orders = {score("random", replace(context(), seed=seed)).order for seed in range(20)}
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders) and len(orders) > 5
    assert score("random", context()).value == (2, 1, 0, 3)  # as when a seed had one permutation only
