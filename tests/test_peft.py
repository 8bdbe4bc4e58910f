"""Table 2's methods: what they train, that they resume, and that what they leave is a network like any other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_training import ARCHITECTURE, Kill, bits, drawn, killed_at, run
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from entpruner.errors import UserError
from entpruner.evaluation import cost
from entpruner.models import arithmetic
from entpruner.models.adapters import Adapter, Scale, add_adapters
from entpruner.models.checkpoints import ModelCard, load_model, save_model
from entpruner.models.lora import LoraLinear
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Flow
from entpruner.params.lora import Lora
from entpruner.params.training import Finetuning
from entpruner.system.randomness import generator
from entpruner.training.objective import Objective
from entpruner.training.peft import merge, prepare, trained_parameters
from entpruner.training.state import TrainState

D, DEPTH, CLASSES, WIDTH, RANK = ARCHITECTURE.hidden_size, ARCHITECTURE.depth, 3, 4, 2
METHODS = ["full", "bitfit", "lora", "difffit", "adapters"]
EFFICIENT = METHODS[1:]
LORA = Lora(rank=RANK, alpha=4)


def tuning(method: str) -> Finetuning:
    steps = {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2}
    return Finetuning(**steps, learning_rate=1e-2, weight_decay=0.01, method=method, lora=LORA, adapter_width=WIDTH)


def random_network(dtype: torch.dtype = torch.float32) -> Transformer:
    return drawn(Transformer(ARCHITECTURE).to(dtype))


def prepared(method: str, dtype: torch.dtype = torch.float32) -> Transformer:
    model = random_network(dtype)
    prepare(model, tuning(method), generator(0, "a", "method"))
    return model


def output(model: Transformer) -> Tensor:
    draw = generator("peft", "inputs")
    x = torch.randn(5, 1, 8, 8, generator=draw).to(model.pos_embed)
    with torch.no_grad():
        return model(x, torch.rand(5, generator=draw), torch.tensor([0, 1, 2, 3, 0]))


def shaken(model: Transformer) -> Transformer:
    """With other values for all that is trained, as after a training."""
    draw = generator("peft", "shaken")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.5 * torch.randn(parameter.shape, generator=draw)
    return model


def trained(folder: Path, method: str, objective: Objective | None = None) -> TrainState:
    state = TrainState.start(prepared(method))
    run(state, folder, objective, tuning(method))
    return state


# ------------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize("method", METHODS)
def test_a_method_begins_with_the_network_as_it_was(method: str) -> None:
    assert torch.equal(output(prepared(method)), output(random_network()))


BIASES = DEPTH * (3 * D + D + 4 * D + D + 6 * D) + (D + D + D) + (2 * D + 32)  # blocks; patches and times; last layer
ADDED = {
    "bitfit": BIASES,
    "lora": DEPTH * RANK * ((D + 3 * D) + (D + D) + 2 * (D + 4 * D) + (D + 6 * D)),
    "difffit": BIASES + DEPTH * 2 * D,
    "adapters": DEPTH * 2 * (2 * D * WIDTH + D + WIDTH),  # Houlsby et al.: 2md + d + m an adapter
}


@pytest.mark.parametrize("method", EFFICIENT)
def test_an_efficient_method_trains_the_label_table_and_what_its_paper_says(method: str) -> None:
    assert trained_parameters(prepared(method)) == (CLASSES + 1) * D + ADDED[method]


def test_full_trains_all_but_the_position_table() -> None:
    assert trained_parameters(prepared("full")) == sum(p.numel() for p in random_network().parameters()) - 4 * D


@pytest.mark.parametrize("method", EFFICIENT)
def test_training_moves_what_is_trained_and_nothing_else(tmp_path: Path, method: str) -> None:
    before = prepared(method)
    state = trained(tmp_path, method)
    for name, parameter in before.named_parameters():
        now, average = state.model.get_parameter(name), state.ema.get_parameter(name)
        assert torch.equal(now, parameter) == (not parameter.requires_grad), name
        assert torch.equal(average, parameter) == (not parameter.requires_grad), name
    assert state.moments.keys() == {name for name, p in before.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["lora", "adapters"])
def test_what_is_added_is_drawn_from_the_given_generator_alone(method: str) -> None:
    one, same, other = random_network(), random_network(), random_network()
    for model, elsewhere, seed in ((one, 0, 0), (same, 1, 0), (other, 0, 1)):
        torch.manual_seed(elsewhere)
        prepare(model, tuning(method), generator(seed))
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert any(not torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


# ------------------------------------------------------------------------------------------------------- the layers


def test_an_adapter_is_a_bottleneck_with_a_residual() -> None:
    adapter = Adapter(2, 1).double()
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[1.0, -1.0]]))
        adapter.down.bias.fill_(0.5)
        adapter.up.weight.copy_(torch.tensor([[2.0], [3.0]]))
        adapter.up.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([[[0.25, 0.75]]], dtype=torch.float64)  # the bottleneck is gelu(0) = 0
    assert torch.equal(adapter(x), x + torch.tensor([0.0, 1.0]))
    far = torch.tensor([[[100.0, 0.0]]], dtype=torch.float64)  # and here the identity
    torch.testing.assert_close(adapter(far), far + torch.tensor([201.0, 302.5], dtype=torch.float64))


def test_lora_updates_every_linear_layer_of_the_blocks() -> None:
    block = prepared("lora", torch.float64).blocks[0]
    updates = {name: layer for name, layer in block.named_modules() if isinstance(layer, LoraLinear)}
    assert updates.keys() == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"}
    qkv = updates["attn.qkv"]
    assert qkv.down.shape == (RANK, D) and qkv.up.shape == (3 * D, RANK) and qkv.down.dtype == torch.float64
    assert 0 < qkv.down.abs().max() <= D**-0.5 and not qkv.up.any()


def test_a_lora_update_is_alpha_over_rank_times_up_times_down() -> None:
    layer = LoraLinear(nn.Linear(3, 2, bias=False), Lora(rank=2, alpha=6), generator(0))
    with torch.no_grad():
        layer.base.weight.zero_()
        layer.down.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        layer.up.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert layer(torch.tensor([1.0, 1.0, 5.0])).tolist() == [3.0, 6.0]


def test_a_layer_with_its_update_merged_has_weights_of_its_own() -> None:
    base = nn.Linear(3, 2)
    merged = LoraLinear(base, LORA, generator(0)).merged()
    torch.nn.init.zeros_(merged.weight)
    assert base.weight.abs().min() > 0 and merged.weight.requires_grad


@pytest.mark.parametrize("method", ["lora", "difffit"])
def test_merged_it_is_a_network_of_the_official_layout_that_computes_the_same(method: str) -> None:
    model = shaken(prepared(method, torch.float64))
    expected = output(model)
    assert not torch.allclose(expected, output(random_network(torch.float64)))
    merge(model, tuning(method))
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in Transformer(ARCHITECTURE).state_dict().items()
    }
    torch.testing.assert_close(output(model), expected, rtol=1e-12, atol=1e-12)


def test_a_scale_of_two_behind_attention_doubles_the_projection_once_merged() -> None:
    model = prepared("difffit")
    weight, bias = model.blocks[1].attn.sublayer.proj.weight.clone(), model.blocks[1].attn.sublayer.proj.bias.clone()
    with torch.no_grad():
        next(module for module in model.blocks[1].attn if isinstance(module, Scale)).gamma.fill_(2)
    merge(model, tuning("difffit"))
    assert torch.equal(model.blocks[1].attn.proj.weight, 2 * weight)
    assert torch.equal(model.blocks[1].attn.proj.bias, 2 * bias)
    assert torch.equal(model.blocks[0].attn.proj.weight, random_network().blocks[0].attn.proj.weight)


# --------------------------------------------------------------------------------------------------- on disk, resumed


def card(adapter_width: int | None) -> ModelCard:
    return ModelCard(
        architecture=ARCHITECTURE,
        kept_blocks=tuple(range(DEPTH)),
        process=Flow(),
        class_names=("a", "b", "c"),
        adapter_width=adapter_width,
    )


def test_adapters_stay_in_the_saved_model(tmp_path: Path) -> None:
    model = shaken(prepared("adapters"))
    merge(model, tuning("adapters"))
    save_model(tmp_path, model, card(WIDTH))
    loaded, loaded_card = load_model(tmp_path)
    assert loaded_card.adapter_width == WIDTH
    assert torch.equal(output(loaded), output(model))


@pytest.mark.parametrize("width", [None, WIDTH + 1])
def test_adapters_that_the_card_does_not_tell_of_are_refused(tmp_path: Path, width: int | None) -> None:
    save_model(tmp_path, prepared("adapters"), card(width))
    with pytest.raises(UserError, match=r"blocks\.0\.attn\."):
        load_model(tmp_path)


@pytest.mark.parametrize("method", EFFICIENT)
def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path: Path, method: str) -> None:
    with pytest.raises(Kill):
        trained(tmp_path / "killed", method, killed_at(5))
    assert [folder.name for folder in (tmp_path / "killed").iterdir()] == ["step-00000004"]
    assert bits(trained(tmp_path / "killed", method)) == bits(trained(tmp_path / "whole", method))


# --------------------------------------------------------------------------------------------------------------- cost


MEASURED = ARCHITECTURE.model_copy(update={"hidden_size": 32, "depth": 6, "patch_size": 2})


def counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def test_macs_with_adapters_agree_with_torchs_flop_counter() -> None:
    model = Transformer(MEASURED)
    add_adapters(model, WIDTH)
    x, t, y = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 1])
    assert counted(lambda: model(x, t, y)) == 2 * 2 * arithmetic.macs(MEASURED, adapter_width=WIDTH)
    assert arithmetic.macs(MEASURED, 6, WIDTH) > arithmetic.macs(MEASURED, 6)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_costs_what_torchs_flop_counter_says(method: str) -> None:
    """But for the first layers, whose inputs need no gradient."""
    model = Transformer(MEASURED)
    prepare(model, tuning(method), generator(0))
    x, t, y = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 1])
    found = counted(lambda: torch.autograd.backward(model(x, t, y).sum()))
    assert found / (2 * 2) == pytest.approx(arithmetic.step_macs(MEASURED, 6, tuning(method)), rel=0.01)


def test_a_cost_files_keys_tell_networks_with_and_without_adapters_apart() -> None:
    assert (cost.cost_key(12), cost.cost_key(12, 8)) == ("12", "12+a8")
