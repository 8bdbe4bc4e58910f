"""The state of a training: it survives the disk and the dropping of blocks bit for bit, and a wrong one is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_training import bits

from entpruner.errors import UserError
from entpruner.layout import STATE as STATE_FILE
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture
from entpruner.params.pruning import Pruning
from entpruner.params.training import OptimizerName
from entpruner.system.randomness import generator
from entpruner.training.state import TrainState

ARCHITECTURE = Architecture(
    depth=4, hidden_size=16, num_heads=2, patch_size=4, input_size=8, in_channels=1, num_classes=3
)


def filled(depth: int = 4, optimizer: OptimizerName = "adamw") -> TrainState:
    """A state whose every tensor is random, the average and the moments apart from the weights."""
    state = TrainState.start(Transformer(ARCHITECTURE.model_copy(update={"depth": depth})), optimizer)
    random = generator(0, "state")
    with torch.no_grad():
        for tensor in [*dict(state.named_tensors()).values(), *state.ema.state_dict().values()]:
            tensor.copy_(torch.rand(tensor.shape, generator=random))
    state.step = 7
    return state


def assert_same(a: TrainState, b: TrainState) -> None:
    assert (a.step, a.model.kept_blocks, a.ema.kept_blocks) == (b.step, b.model.kept_blocks, b.ema.kept_blocks)
    assert bits(a) == bits(b)


@pytest.mark.parametrize(
    ("measured_on", "proxied", "reranked"),
    [("average", "ema", "ema"), ("trained", "model", "model"), ("split", "model", "ema")],
)
def test_one_setting_says_which_weights_proxies_and_re_ranking_see(measured_on: str, proxied: str, reranked: str):
    state, pruning = filled(), Pruning(measured_on=measured_on)
    assert state.network(pruning.proxied) is getattr(state, proxied)
    assert state.network(pruning.reranked) is getattr(state, reranked)


def test_a_run_starts_with_its_own_average_and_zero_moments_of_all_trained_weights():
    model = Transformer(ARCHITECTURE).initialize(generator(0))
    state = TrainState.start(model)
    assert state.moments.keys() == {name for name, _ in model.named_parameters()} - {"pos_embed"}
    assert not any(tensor.any() for moments in state.moments.values() for tensor in moments.values())
    for name, parameter in state.ema.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
        assert parameter.data_ptr() != model.get_parameter(name).data_ptr()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_save_and_load_keep_every_bit_and_saving_again_every_byte(tmp_path: Path, optimizer: OptimizerName):
    state = filled(optimizer=optimizer)
    state.save(tmp_path)
    first = (tmp_path / STATE_FILE).read_bytes()
    loaded = TrainState.load(tmp_path, state.ema, optimizer)
    assert_same(loaded, state)
    loaded.save(tmp_path)
    assert (tmp_path / STATE_FILE).read_bytes() == first


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("drop", [{0}, {3}, {1, 2}])
def test_dropping_blocks_keeps_the_rest_of_model_average_and_moments_bit_for_bit(
    drop: set[int], optimizer: OptimizerName
):
    state = filled(optimizer=optimizer)
    pruned = state.drop_blocks(drop)
    kept = tuple(block for block in range(4) if block not in drop)
    assert pruned.model.kept_blocks == pruned.ema.kept_blocks == kept
    assert pruned.step == state.step

    before, after = bits(state), bits(pruned)
    old_name = {}
    for name in after:
        prefix, dot, rest = name.partition("blocks.")
        new, _, tail = rest.partition(".")
        old_name[name] = f"{prefix}blocks.{kept[int(new)]}.{tail}" if dot else name
    gone = {name for name in before if any(f"blocks.{block}." in name for block in drop)}
    assert set(old_name.values()) == before.keys() - gone
    assert all(after[name] == before[old_name[name]] for name in after)


def test_dropping_in_two_stages_is_dropping_at_once_and_survives_the_disk(tmp_path: Path):
    state = filled()
    twice = state.drop_blocks({1}).drop_blocks({3})
    assert_same(twice, state.drop_blocks({1, 3}))
    twice.save(tmp_path)
    assert_same(TrainState.load(tmp_path, twice.ema), twice)


def test_dropping_a_block_that_is_gone_is_an_error():
    with pytest.raises(UserError, match="1"):
        filled().drop_blocks({1}).drop_blocks({1})


def test_a_state_of_another_depth_is_refused_by_name_and_shape(tmp_path: Path):
    filled(depth=3).save(tmp_path)
    with pytest.raises(UserError, match=r"exp_avg\.blocks\.3\.\S+ should be \(\d+.*\), is nothing"):
        TrainState.load(tmp_path, filled().ema)


def test_a_missing_key_a_surplus_key_and_another_shape_are_refused(tmp_path: Path):
    state = filled()
    state.save(tmp_path)
    whole = load_file(tmp_path / STATE_FILE)
    name = "exp_avg.blocks.0.attn.qkv.bias"
    for broken in (
        {key: tensor for key, tensor in whole.items() if key != name},
        whole | {"exp_avg.blocks.9.attn.qkv.bias": torch.zeros(1)},
        whole | {name: torch.zeros(5)},
    ):
        save_file(broken, tmp_path / STATE_FILE, metadata={"step": "7"})
        with pytest.raises(UserError, match=r"exp_avg\.blocks\.[09]\.attn\.qkv\.bias should be"):
            TrainState.load(tmp_path, state.ema)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no step"])
def test_an_unreadable_state_is_an_error_that_names_the_file(tmp_path: Path, damage: str):
    state = filled()
    path = tmp_path / STATE_FILE
    if damage == "truncated":
        state.save(tmp_path)
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "no step":
        save_file(dict(state.named_tensors()), path)
    with pytest.raises(UserError, match=STATE_FILE) as error:
        TrainState.load(tmp_path, state.ema)
    assert "\n" not in str(error.value)
