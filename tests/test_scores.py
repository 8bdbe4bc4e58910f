"""What holds for every criterion; and each but CED on a case whose answer is known."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scoring_context import (
    PROCESSES,
    KnownNetwork,
    broken,
    context,
    network,
    predictions,
    training_losses,
)
from torch import Tensor, nn

from entpruner.errors import UserError
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.params.arms import SIZED
from entpruner.params.backbones import Flow, ProcessSettings
from entpruner.params.criteria import CRITERIA, declared
from entpruner.params.scoring import LearnedMask, Scoring
from entpruner.process.flow import FlowMatching
from entpruner.process.guidance import Network
from entpruner.scores import ScoreContext, Scores, score
from entpruner.scores.criteria.every_other import evenly_spread
from entpruner.scores.criteria.learned import draw_masks, masked
from entpruner.scores.criteria.random_median import calibration_losses

BOTH = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
EACH = pytest.mark.parametrize("criterion", CRITERIA)


def removed(scores: Scores) -> set[int]:
    """The blocks that a criterion of ``SIZED`` chose."""
    return {block for block, value in zip(scores.blocks, scores.value, strict=True) if value == 0}


def idle(model: Transformer, *positions: int) -> Transformer:
    """The network with these blocks made exact identities: their gates are closed."""
    for position in positions:
        modulation = model.blocks[position].adaLN_modulation[1]
        nn.init.zeros_(modulation.weight)
        nn.init.zeros_(modulation.bias)
    return model


# --------------------------------------------------------------------------------------------- what all must live up to


@EACH
def test_every_criterion_scores_every_block_is_repeatable_and_survives_json(criterion: str) -> None:
    scores = score(criterion, context())
    assert scores.criterion == criterion
    assert scores.blocks == (0, 1, 2, 3)
    assert len(scores.value) == len(scores.signed) == len(scores.stderr) == 4
    assert score(criterion, context()) == scores
    assert Scores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False))) == scores


@EACH
def test_a_pruned_network_is_scored_in_the_original_numbering(criterion: str) -> None:
    scores = score(criterion, context(model=network((1, 3))))
    assert scores.blocks == (1, 3)
    assert sorted(scores.order) == [1, 3]


@EACH
def test_scoring_leaves_weights_gradients_and_their_flags_as_they_were(criterion: str) -> None:
    model = network()
    model.blocks[1].attn.qkv.requires_grad_(False)
    model.blocks[2].mlp.fc1.weight.grad = torch.ones_like(model.blocks[2].mlp.fc1.weight)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    score(criterion, context(model=model, remove=2))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0]) and parameter.requires_grad == before[name][1]
        if name == "blocks.2.mlp.fc1.weight":
            assert parameter.grad is not None and (parameter.grad == 1).all()
        else:
            assert parameter.grad is None


@pytest.mark.parametrize(
    ("criterion", "estimator"),
    [*((name, "scalar") for name in CRITERIA if name != "learned"), *product(["ced"], ["diagonal", "low_rank", "knn"])],
)
def test_the_batch_size_changes_no_score_beyond_rounding(criterion: str, estimator: str) -> None:
    one, other = (score(criterion, context(batch_size=size, remove=2, estimator=estimator)) for size in (48, 11))
    assert one.value == pytest.approx(other.value, rel=1e-4, abs=1e-6)
    if criterion == "ced":
        assert one.value + one.stderr == pytest.approx(other.value + other.stderr, abs=1e-6)


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
    model = broken(network())
    several = [{"estimator": name} for name in ("scalar", "low_rank", "knn")] if criterion == "ced" else [{}]
    for settings in (*several, {"reduction": "timestep"}):
        with pytest.raises(UserError, match=f"{criterion}: .*not finite"):
            score(criterion, context(model=model, **settings))


@pytest.mark.parametrize("criterion", SIZED)
def test_a_set_has_the_size_that_was_asked_for_and_goes_by_block(criterion: str) -> None:
    for remove in (1, 2, 3):
        scores = score(criterion, context(remove=remove))
        assert len(removed(scores)) == remove
        assert list(scores.order) == [*sorted(removed(scores)), *sorted({0, 1, 2, 3} - removed(scores))]
    for remove in (None, 0, 4, -1):
        with pytest.raises(UserError, match=rf"{criterion} chooses a set: .* 1 to 3 of 4 blocks, not {remove}"):
            score(criterion, context(remove=remove))


@BOTH
@pytest.mark.parametrize(
    "criterion", ["block_influence", "similarity_mse", "taylor", "diff_pruning", "sensitivity", "ld_pruner"]
)
def test_a_block_that_does_nothing_scores_zero_and_goes_first(process: ProcessSettings, criterion: str) -> None:
    """Even by LD-Pruner's samples of a stochastic sampler, as all networks share its noise and the labels."""
    scores = score(criterion, context(process, idle(network(), 2)))
    assert scores.value[2] == pytest.approx(0, abs=1e-5 if criterion == "ld_pruner" else 1e-6)
    assert scores.order[0] == 2 or criterion == "sensitivity"  # whose untrained blocks may be worth less than nothing


# ------------------------------------------------------------------------------------------- what a criterion declares


def test_a_mapping_of_costs_names_every_form_of_its_criterion() -> None:
    mappings = {name: facts.cost for name, facts in CRITERIA.items() if isinstance(facts.cost, dict)}
    forms = {name: get_args(Scoring.model_fields[name].annotation) for name in mappings}
    assert {name: tuple(cost) for name, cost in mappings.items()} == forms and len(forms) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [("SIZED = True", "got SIZED = True"), ("COST: int = 2 * 3", "got COST = 2 * 3"), ("x = 1", "got no COST"),
     ('COST = "gradient"', "got COST = 'gradient'"), ("COST = 1\nSIZED = 5", "got COST = 1, SIZED = 5")],
)  # fmt: skip
def test_a_criterion_that_declares_itself_wrongly_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "toy.py").write_text(text)
    with pytest.raises(UserError, match=f"toy.py: {re.escape(said)}; allowed: COST as "):
        declared(tmp_path / "toy.py")


# ------------------------------------------------------------------------------------------------------- fixed patterns


def test_patterns_go_by_the_blocks_that_a_pruned_network_has() -> None:
    case = context(model=network((0, 2, 3)), remove=1)
    assert score("first", case).order == (0, 2, 3)
    assert score("last", case).order == (3, 2, 0)
    assert removed(score("every_other", case)) == {2}


def test_every_other_block_of_28_is_the_published_list() -> None:
    assert evenly_spread(28, 14) == {0, 2, 4, 6, 8, 10, 12, 15, 17, 19, 21, 23, 25, 27}


@given(st.integers(1, 60).flatmap(lambda depth: st.tuples(st.just(depth), st.integers(1, depth))))
def test_any_count_is_spread_from_the_first_to_the_last_in_like_steps(case: tuple[int, int]) -> None:
    depth, count = case
    kept = sorted(evenly_spread(depth, count))
    assert len(kept) == count and kept[0] == 0
    if count > 1:
        steps = [after - before for before, after in pairwise(kept)]
        assert kept[-1] == depth - 1 and max(steps) - min(steps) <= 1


# --------------------------------------------------------------------------------------------------------------- chance


def test_random_is_a_permutation_that_the_seed_decides() -> None:
    orders = {score("random", replace(context(), seed=seed)).order for seed in range(20)}
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders) and len(orders) > 5
    assert score("random", context()).value == (2, 1, 0, 3)  # as when a seed had one permutation only


def test_trials_are_other_draws_and_the_first_is_the_default() -> None:
    for criterion in ("random", "random_median"):
        values = [score(criterion, context(trial=trial, masks=1, remove=2)).value for trial in range(12)]
        assert values[0] == score(criterion, context(masks=1, remove=2)).value
        assert len(set(values)) > 3


@BOTH
def test_the_calibration_loss_of_a_mask_is_the_loss_of_the_pruned_network(process: ProcessSettings) -> None:
    case = context(process, network((0, 1, 3)))
    masks = [[0], [1, 2], [2]]
    for mask, loss in zip(masks, calibration_losses(case, masks).tolist(), strict=True):
        pruned = drop_blocks(case.model, [case.model.kept_blocks[position] for position in mask])
        assert loss == pytest.approx(training_losses(case, pruned).mean().item(), rel=1e-5)


def test_the_median_mask_is_neither_the_best_nor_the_worst() -> None:
    case = context(model=network((0, 1, 3)), masks=99)
    assert removed(score("random_median", case)) == {score("sensitivity", case).order[1]}


# -------------------------------------------------------------------------------------------------------------- weights


def test_magnitude_is_the_mean_absolute_weight_of_the_linear_layers_each_weight_counted_alike() -> None:
    for block, value in zip(network().blocks, score("magnitude", context()).value, strict=True):
        weights = torch.cat([p.flatten() for name, p in block.named_parameters() if name.endswith("weight")])
        assert value == pytest.approx(weights.abs().double().mean().item())


# -------------------------------------------------------------------------------------------------------- hidden states


class Tokens(KnownNetwork):
    """Known blocks behind an embedding that cuts the image into tokens and remembers it."""

    def __init__(self, *changes: Any) -> None:
        super().__init__(*changes)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((x, t))
        return x.flatten(1).unflatten(1, (16, 4)), t  # (B, T, D)


def quarter_turn(tokens: Tensor, _: Any) -> Tensor:
    a, b, c, d = tokens.unbind(-1)
    return torch.stack([-b, a, -d, c], dim=-1)


def multiplied(factor: float) -> Any:
    return lambda x, _: factor * x


def test_block_influence_is_one_minus_the_cosine() -> None:
    scores = score("block_influence", context(model=Tokens(multiplied(3), multiplied(-1), quarter_turn, multiplied(1))))
    assert scores.value == pytest.approx([0, 2, 1, 0], abs=1e-6)
    assert scores.stderr == pytest.approx([0] * 4, abs=1e-6)
    assert scores.draws == 48


def test_similarity_is_the_mean_squared_difference() -> None:
    case = context(model=Tokens(lambda x, _: x + 0.5, multiplied(1), multiplied(-1), quarter_turn))
    each = torch.cat([(batch.x_t + 0.5).square().flatten(1).mean(1).double() for batch in case.draws()])
    scores = score("similarity_mse", case)
    assert scores.value == pytest.approx([0.25, 0, 4 * each.mean().item(), 2 * each.mean().item()], abs=1e-6)
    assert scores.stderr[2] == pytest.approx(4 * each.std().item() / 48**0.5, rel=1e-5)


@BOTH
def test_clean_block_influence_sees_images_without_noise_at_small_times(process: ProcessSettings) -> None:
    model = Tokens(quarter_turn, multiplied(3))
    case = context(process, model, block_influence="clean")
    scores = score("block_influence", case)
    x, t = (torch.cat(parts) for parts in zip(*model.seen, strict=True))
    assert scores.draws == len(x) == 12  # a quarter of 48, t being stratified
    assert (case.process.time_fraction(t) < 0.25).all()
    assert ((t < 25) if process.kind == "diffusion" else (t > 0.75)).all()
    every = case.images.batch(torch.arange(40))[0]
    assert all((image == every).flatten(1).all(1).any() for image in x)


# -------------------------------------------------------------------------------------------------------------- outputs


@BOTH
def test_sensitivity_is_the_rise_of_the_training_loss(process: ProcessSettings) -> None:
    case = context(process)
    scores = score("sensitivity", case)
    for i, block in enumerate(scores.blocks):
        rise = training_losses(case, drop_blocks(case.model, {block})) - training_losses(case, case.model)
        assert scores.value[i] == pytest.approx(rise.mean().item(), abs=1e-6)
        assert scores.stderr[i] == pytest.approx(rise.std().item() / 48**0.5, rel=1e-4)
        # 48 draws stratified in t: 12 in each of 4 bins, so the bins' mean is the mean.
        assert sum(scores.per_timestep[i]) / 4 == pytest.approx(scores.value[i], abs=1e-9)


@BOTH
def test_ld_pruner_one_step_by_hand(process: ProcessSettings) -> None:
    case = context(process, ld_pruner="one_step")
    scores = score("ld_pruner", case)
    whole = predictions(case, case.model).double()
    for block, (value, stderr) in enumerate(zip(scores.value, scores.stderr, strict=True)):
        without = predictions(case, drop_blocks(case.model, {block})).double()
        spread = without.std(0, correction=0) - whole.std(0, correction=0)
        by_hand = (without.mean(0) - whole.mean(0)).norm() + spread.norm()
        assert value == pytest.approx(by_hand.item(), rel=1e-5)
        assert 0 < stderr < value


@BOTH
def test_ld_pruner_samples_in_batches(process: ProcessSettings) -> None:
    scores = score("ld_pruner", context(process, batch_size=4))
    assert scores.draws == 6 and min(scores.value) > 0


# ------------------------------------------------------------------------------------------------------------ gradients


@BOTH
def test_taylor_is_weight_times_gradient_of_the_mean_training_loss(process: ProcessSettings) -> None:
    case = context(process)
    scores = score("taylor", case)
    assert scores.value == pytest.approx(by_hand(case, range(4)), rel=1e-4)
    assert scores.stderr == (None,) * 4


def by_hand(case: ScoreContext, bins: Sequence[int]) -> list[float]:
    """Σ |w g| of each block for the draws of some of four timestep bins, by one ordinary backward pass."""
    batches = list(case.draws())
    model, parts = case.model, [torch.cat([getattr(b, key) for b in batches]) for key in ("x", "noise", "t", "y")]
    losses = case.process.losses(model, *parts)["loss"]
    chosen = torch.isin(case.bins(parts[2]), torch.tensor(list(bins)))
    losses[chosen].mean().backward()
    values = [sum((p * p.grad).abs().sum().item() for p in block.parameters()) for block in model.blocks]
    model.zero_grad()
    return values


class Steps(FlowMatching):
    """Flow matching whose loss is scaled by a factor a quarter of the time axis, the first nearest the data."""

    def __init__(self, *factors: float) -> None:
        super().__init__(Flow())
        self.factors = torch.tensor(factors)

    def losses(self, model: Network, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        factor = self.factors[(self.time_fraction(t) * 4).long()]
        return {"loss": factor * super().losses(model, x, noise, t, y)["loss"]}


def test_diff_pruning_leaves_out_the_timesteps_of_little_loss_wherever_they_lie() -> None:
    case = context(Steps(1e-3, 1.0, 1e-3, 1.0), loss_threshold=0.05)
    scores = score("diff_pruning", case)
    assert scores.value == pytest.approx(by_hand(case, (1, 3)), rel=1e-4)
    assert scores.draws == 24


@BOTH
def test_diff_pruning_without_a_threshold_is_taylor(process: ProcessSettings) -> None:
    case = context(process, loss_threshold=0.0, draws=30, bins=40)  # more bins than draws: some are empty
    assert score("diff_pruning", case).value == score("taylor", case).value


# -------------------------------------------------------------------------------------------------------- learned masks


class Imitation(FlowMatching):
    """A process whose loss is the distance to what a given network says: every block that does something matters."""

    def __init__(self, whole: Transformer) -> None:
        super().__init__(Flow())
        self.whole = whole

    def losses(self, model: Network, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        inputs = self.add_noise(x, noise, t), t, y
        with torch.no_grad():
            target = self.whole(*inputs)
        return {"loss": (model(*inputs) - target).square().flatten(1).mean(1)}


@pytest.mark.parametrize(("groups", "idles"), [(2, (0, 2, 4)), (2, (1, 2, 3)), (1, (1, 2, 5))])
def test_learned_masks_remove_exactly_the_blocks_that_do_nothing(groups: int, idles: tuple[int, ...]) -> None:
    model = idle(network(depth=6), *idles)
    settings = LearnedMask(steps=30, batch_size=32, groups=groups, mask_learning_rate=0.03)
    assert removed(score("learned", context(Imitation(model), model, learned=settings, remove=3))) == set(idles)


def test_groups_share_the_removal_and_the_first_bears_what_is_left_over() -> None:
    case = context(model=network(depth=6), learned=LearnedMask(steps=1, batch_size=2, groups=3), remove=5)
    assert [sum(block // 2 == group for block in removed(score("learned", case))) for group in range(3)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("depth", "groups", "says"),
    [(4, 3, r"groups 3 does not divide the network's 4 blocks"), (22, 1, r"705432 masks, .* set .*groups above 1")],
)
def test_groups_that_cannot_be_learned_are_refused(depth: int, groups: int, says: str) -> None:
    model = Tokens(*[quarter_turn] * depth)
    with pytest.raises(UserError, match=f"learned: .*{says}"):
        score("learned", context(model=model, learned=LearnedMask(groups=groups), remove=depth // 2))


@BOTH
def test_a_masked_network_is_each_samples_own_pruned_network(process: ProcessSettings) -> None:
    case = context(process)
    batch = next(case.draws())
    inputs = batch.x_t, batch.t, batch.y
    chosen = [*combinations(range(4), 2), (0,), (1, 2, 3)] * 2
    mask = torch.tensor([[float(position not in drop) for position in range(4)] for drop in chosen])
    with torch.no_grad():
        output = masked(case.model, mask)(*inputs)
        for sample, drop in enumerate(chosen):
            alone = drop_blocks(case.model, drop)(*(part[sample : sample + 1] for part in inputs))
            torch.testing.assert_close(output[sample : sample + 1], alone, rtol=1e-4, atol=1e-5)


def test_masks_are_drawn_as_the_logits_say_and_pass_the_softmaxs_gradient() -> None:
    masks = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    logits = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    random = torch.Generator().manual_seed(0)
    gumbel = -torch.empty(20000, 2, dtype=torch.float64).exponential_(generator=random).log()
    drawn = draw_masks(logits, masks, gumbel, temperature=0.5)
    assert drawn.unique().tolist() == [0, 1] and (drawn.sum(1) == 1).all()
    # The Gumbel-max trick: category k comes up with probability softmax(logits)_k, at any temperature.
    assert drawn[:, 0].mean().item() == pytest.approx(logits.softmax(0)[0].item(), abs=0.01)
    soft = ((logits + gumbel) / 0.5).softmax(1)
    (straight,) = torch.autograd.grad(drawn[:, 0].sum(), logits)
    (through,) = torch.autograd.grad(soft[:, 0].sum(), logits)
    assert torch.allclose(straight, through)
