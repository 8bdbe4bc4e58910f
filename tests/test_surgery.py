"""Dropping blocks is skipping them, in whatever order they go; test_unet.py shows it for a U-Net's skip connections."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import drawn
from torch import Tensor

from entpruner.errors import UserError
from entpruner.evaluation.cost import parameters
from entpruner.models.checkpoints import build
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import (
    drop_blocks,
    first_label_rows,
    kept_positions,
    renumbered_parameters,
    replace_label_table,
)
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, UNetArchitecture
from entpruner.system.randomness import generator

DEPTH = 6
IMAGES = {"input_size": 4, "in_channels": 1, "num_classes": 3}
ARCHITECTURES = {
    "transformer": Architecture(depth=DEPTH, hidden_size=8, num_heads=2, patch_size=2, **IMAGES),
    "U-Net": UNetArchitecture(channels=8, multipliers=(1, 2), blocks_per_level=1, middle_blocks=2, **IMAGES),
}
SUBSETS = st.sets(st.integers(0, DEPTH - 1), max_size=DEPTH - 1)
Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return drawn(build(ARCHITECTURES["transformer"])).double()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> BlockNetwork:
    return drawn(build(ARCHITECTURES[request.param])).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    x = torch.randn(2, 1, 4, 4, generator=generator("batch"), dtype=torch.float64)
    return x, torch.tensor([0.2, 0.7]), torch.tensor([1, 3])


@given(drop=SUBSETS)
@settings(max_examples=10)
def test_dropping_is_skipping(transformer: Transformer, batch: Batch, drop: set[int]) -> None:
    pruned = drop_blocks(transformer, drop)
    assert pruned.kept_blocks == tuple(sorted(set(range(DEPTH)) - drop))
    assert len(pruned.blocks) == DEPTH - len(drop)
    tokens, c = transformer.embed(*batch)
    for position, block in enumerate(transformer.blocks):
        tokens = tokens if position in drop else block(tokens, c)
    torch.testing.assert_close(pruned(*batch), transformer.head(tokens, c), rtol=0, atol=0)


@given(drop=SUBSETS, data=st.data())
@settings(max_examples=20)
def test_dropping_in_two_steps_is_dropping_at_once(model: BlockNetwork, drop: set[int], data: st.DataObject) -> None:
    first = data.draw(st.sets(st.sampled_from(sorted(drop)))) if drop else set()
    at_once, in_two = drop_blocks(model, drop), drop_blocks(drop_blocks(model, first), drop - first)
    assert in_two.kept_blocks == at_once.kept_blocks
    one, two = at_once.state_dict(), in_two.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@given(drop=SUBSETS)
@settings(max_examples=20)
def test_the_dropped_blocks_parameters_go_and_every_other_knows_its_old_name(
    model: BlockNetwork, drop: set[int]
) -> None:
    pruned, names = drop_blocks(model, drop), renumbered_parameters(model, drop)
    assert parameters(model) - parameters(pruned) == sum(parameters(model.blocks[block]) for block in drop)
    old, new = dict(model.named_parameters()), dict(pruned.named_parameters())
    assert names.keys() == new.keys()
    assert all(torch.equal(new[name], old[names[name]]) for name in new)


def test_the_pruned_network_has_weights_of_its_own(model: BlockNetwork) -> None:
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    pruned = drop_blocks(model, {0})
    assert not theirs & {parameter.data_ptr() for parameter in pruned.parameters()}
    assert {n for n, p in pruned.named_parameters() if not p.requires_grad} <= {"pos_embed"}


@pytest.mark.parametrize(
    ("drop", "says"),
    [
        ({6}, r"cannot drop block 6: the network has 0, 1, 2, 3, 4, 5"),
        ({-1, 2}, r"cannot drop block -1"),
        (set(range(DEPTH)), r"cannot drop all .* keep at least one"),
    ],
)
def test_blocks_that_cannot_go(model: BlockNetwork, drop: set[int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        drop_blocks(model, drop)


def test_a_block_that_is_gone_cannot_go_again(model: BlockNetwork) -> None:
    with pytest.raises(UserError, match=r"block 2: the network has 0, 1, 3, 4, 5"):
        drop_blocks(drop_blocks(model, {2}), {2})


def test_positions_are_in_the_current_network() -> None:
    assert kept_positions((1, 4, 7), {4}) == (0, 2)


def test_a_new_label_table_leaves_the_rest(model: BlockNetwork, batch: Batch) -> None:
    pruned, name = drop_blocks(model, {1}), "y_embedder.embedding_table.weight"
    moved = replace_label_table(pruned, 9, generator(0))
    assert moved.architecture == model.architecture.model_copy(update={"num_classes": 9})
    assert moved.null_class == 9 and moved.kept_blocks == pruned.kept_blocks
    before, after = pruned.state_dict(), moved.state_dict()
    assert after[name].shape == (10, before[name].shape[1]) and after[name].dtype == torch.float64
    assert after[name].std().item() == pytest.approx(0.02, rel=0.3)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - {name})
    assert moved(*batch[:2], torch.tensor([9, 0])).shape == (2, 2, 4, 4)


def test_other_classes_of_the_same_number_get_a_new_table_too(model: BlockNetwork) -> None:
    moved = [replace_label_table(model, 3, generator(seed)) for seed in (0, 0, 1)]
    tables = [network.y_embedder.embedding_table.weight for network in moved]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert not torch.equal(tables[0], model.y_embedder.embedding_table.weight)


def test_new_classes_that_take_the_first_rows_compute_what_those_classes_did(model: BlockNetwork, batch: Batch) -> None:
    pruned = drop_blocks(model, {1})
    moved = first_label_rows(pruned, 2)
    assert moved.architecture.num_classes == moved.null_class == 2 and moved.kept_blocks == pruned.kept_blocks
    for old, new in ((0, 0), (1, 1), (3, 2)):  # the last of each is "no class"
        labels = [torch.full((2,), label) for label in (old, new)]
        assert torch.equal(pruned(*batch[:2], labels[0]), moved(*batch[:2], labels[1]))
    with pytest.raises(UserError, match="3 classes, too few for 4; set label_table to new"):
        first_label_rows(pruned, 4)
