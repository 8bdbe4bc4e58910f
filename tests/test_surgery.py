"""Dropping blocks is skipping them, in whatever order they go."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entpruner.errors import UserError
from entpruner.models.surgery import (
    drop_blocks,
    first_label_rows,
    kept_positions,
    renumbered_parameters,
    replace_label_table,
)
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture

DEPTH = 6
ARCHITECTURE = Architecture(
    depth=DEPTH, hidden_size=8, num_heads=2, patch_size=2, input_size=4, in_channels=1, num_classes=3
)
SUBSETS = st.sets(st.integers(0, DEPTH - 1), max_size=DEPTH - 1)


@pytest.fixture(scope="module")
def model():
    """Random everywhere: at DiT's initialisation adaLN-zero makes every block the identity."""
    model, random = Transformer(ARCHITECTURE), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=random)
    return model.double()


@pytest.fixture(scope="module")
def batch():
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, 1, 4, 4, generator=random, dtype=torch.float64)
    return x, torch.tensor([0.2, 0.7]), torch.tensor([1, 3])


def with_blocks_skipped(model, batch, skipped):
    tokens, c = model.embed(*batch)
    for position, block in enumerate(model.blocks):
        if position not in skipped:
            tokens = block(tokens, c)
    return model.head(tokens, c)


@given(drop=SUBSETS)
@settings(max_examples=10)
def test_dropping_is_skipping(model, batch, drop):
    pruned = drop_blocks(model, drop)
    assert pruned.kept_blocks == tuple(sorted(set(range(DEPTH)) - drop))
    assert len(pruned.blocks) == DEPTH - len(drop)
    torch.testing.assert_close(pruned(*batch), with_blocks_skipped(model, batch, drop), rtol=0, atol=0)


@given(drop=SUBSETS, data=st.data())
@settings(max_examples=20)
def test_dropping_in_two_steps_is_dropping_at_once(model, drop, data):
    first = data.draw(st.sets(st.sampled_from(sorted(drop)))) if drop else set()
    at_once, in_two = drop_blocks(model, drop), drop_blocks(drop_blocks(model, first), drop - first)
    assert in_two.kept_blocks == at_once.kept_blocks
    one, two = at_once.state_dict(), in_two.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@given(drop=SUBSETS)
@settings(max_examples=20)
def test_every_parameter_knows_its_old_name(model, drop):
    pruned, names = drop_blocks(model, drop), renumbered_parameters(model, drop)
    old = dict(model.named_parameters())
    assert set(names) == {name for name, _ in pruned.named_parameters()}
    assert all(torch.equal(parameter, old[names[name]]) for name, parameter in pruned.named_parameters())


def test_the_pruned_network_has_weights_of_its_own(model):
    pruned = drop_blocks(model, {0})
    with torch.no_grad():
        pruned.blocks[0].mlp.fc1.weight.zero_()
    assert model.blocks[1].mlp.fc1.weight.abs().min() > 0
    assert not pruned.pos_embed.requires_grad


@pytest.mark.parametrize(
    ("drop", "says"),
    [
        ({6}, r"cannot drop block 6: the network has 0, 1, 2, 3, 4, 5"),
        ({-1, 2}, r"cannot drop block -1"),
        (set(range(DEPTH)), r"cannot drop all .* keep at least one"),
    ],
)
def test_blocks_that_cannot_go(model, drop, says):
    with pytest.raises(UserError, match=says):
        drop_blocks(model, drop)


def test_a_block_that_is_gone_cannot_go_again(model):
    with pytest.raises(UserError, match=r"block 2: the network has 0, 1, 3, 4, 5"):
        drop_blocks(drop_blocks(model, {2}), {2})


def test_positions_are_in_the_current_network():
    assert kept_positions((1, 4, 7), {4}) == (0, 2)


def test_a_new_label_table_leaves_the_rest(model, batch):
    pruned = drop_blocks(model, {1})
    moved = replace_label_table(pruned, 9, torch.Generator().manual_seed(0))
    assert moved.architecture == ARCHITECTURE.model_copy(update={"num_classes": 9})
    assert moved.null_class == 9 and moved.kept_blocks == pruned.kept_blocks
    table = moved.y_embedder.embedding_table.weight
    assert table.shape == (10, 8) and table.std().item() == pytest.approx(0.02, rel=0.3)
    before, after = pruned.state_dict(), moved.state_dict()
    changed = {
        key for key in before if before[key].shape != after[key].shape or not torch.equal(before[key], after[key])
    }
    assert changed == {"y_embedder.embedding_table.weight"}
    x, t, _ = batch
    assert moved(x, t, torch.tensor([9, 0])).shape == (2, 2, 4, 4)


def test_other_classes_of_the_same_number_get_a_new_table_too(model):
    tables = [
        replace_label_table(model, 3, torch.Generator().manual_seed(seed)).y_embedder.embedding_table.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert not torch.equal(tables[0], model.y_embedder.embedding_table.weight)


def test_new_classes_that_take_the_first_rows_compute_what_those_classes_did(model, batch):
    pruned = drop_blocks(model, {1})
    moved = first_label_rows(pruned, 2)
    assert moved.architecture.num_classes == moved.null_class == 2 and moved.kept_blocks == pruned.kept_blocks
    x, t, _ = batch
    for old, new in ((0, 0), (1, 1), (3, 2)):  # the last of each is "no class"
        labels = [torch.full((2,), label) for label in (old, new)]
        assert torch.equal(pruned(x, t, labels[0]), moved(x, t, labels[1]))
    with pytest.raises(UserError, match="3 classes, too few for 4; set label_table to new"):
        first_label_rows(pruned, 4)
