"""LoRA changes nothing at first, trains its own weights only, and merges into plain layers without a trace."""

import pytest
import torch
from torch import Tensor, nn

from entpruner.models.lora import LoraLinear, add_lora
from entpruner.models.transformer import Block
from entpruner.params.training import Lora

SETTINGS = Lora(rank=2, alpha=6)


@pytest.fixture
def block() -> Block:
    block, random = Block(hidden_size=8, num_heads=2, mlp_ratio=2.0).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3, generator=random)
    return block


def inputs() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return (
        torch.randn(3, 4, 8, generator=random, dtype=torch.float64),
        torch.randn(3, 8, generator=random, dtype=torch.float64),
    )


def updates(block: nn.Module) -> dict[str, LoraLinear]:
    return {name: layer for name, layer in block.named_modules() if isinstance(layer, LoraLinear)}


def test_every_linear_layer_gets_an_update_that_changes_nothing_yet(block: Block) -> None:
    before = block(*inputs())
    parameters = add_lora(block, SETTINGS, torch.Generator().manual_seed(2))
    assert set(updates(block)) == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"}
    assert torch.equal(block(*inputs()), before)
    trainable = [parameter for parameter in block.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in trainable} == {id(parameter) for parameter in parameters}
    qkv = updates(block)["attn.qkv"]
    assert qkv.down.shape == (2, 8) and qkv.up.shape == (24, 2) and qkv.down.dtype == torch.float64
    assert 0 < qkv.down.abs().max() <= 8**-0.5


def test_the_update_is_alpha_over_rank_times_up_times_down() -> None:
    base = nn.Linear(3, 2, bias=False)
    layer = LoraLinear(base, SETTINGS, torch.Generator().manual_seed(0))
    with torch.no_grad():
        base.weight.zero_()
        layer.down.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        layer.up.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert layer(torch.tensor([1.0, 1.0, 5.0])).tolist() == [3.0, 6.0]


def test_training_moves_the_output_and_merging_keeps_it(block: Block) -> None:
    parameters = add_lora(block, SETTINGS, torch.Generator().manual_seed(2))
    before = block(*inputs())
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1
    trained = block(*inputs())
    assert (trained - before).abs().max() > 0.01
    for name, layer in updates(block).items():
        block.set_submodule(name, layer.merged())
    assert not updates(block)
    torch.testing.assert_close(block(*inputs()), trained, rtol=1e-12, atol=1e-12)
    assert all(parameter.requires_grad for parameter in block.parameters())


def test_a_merged_layer_has_weights_of_its_own() -> None:
    base = nn.Linear(3, 2)
    merged = LoraLinear(base, SETTINGS, torch.Generator().manual_seed(0)).merged()
    with torch.no_grad():
        merged.weight.zero_()
    assert base.weight.abs().min() > 0


def test_the_generator_alone_decides_the_start() -> None:
    starts = [LoraLinear(nn.Linear(8, 8), SETTINGS, torch.Generator().manual_seed(seed)).down for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
