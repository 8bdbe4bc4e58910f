"""What a network is before it has learned anything, a transformer and a U-Net alike."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from entpruner.models.checkpoints import build
from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer, attention_by_sums
from entpruner.params.backbones import Architecture, UNetArchitecture
from entpruner.system.randomness import generator

IMAGES = {"input_size": 8, "in_channels": 3, "num_classes": 7}
TRANSFORMER = Architecture(depth=2, hidden_size=48, num_heads=4, patch_size=2, **IMAGES)
UNET = UNetArchitecture(channels=8, multipliers=(1, 2), blocks_per_level=2, middle_blocks=1, **IMAGES)


@pytest.fixture(params=[TRANSFORMER, UNET], ids=["transformer", "U-Net"])
def model(request: pytest.FixtureRequest) -> BlockNetwork:
    return build(request.param).initialize(generator(0))


def test_at_first_every_block_is_the_identity_and_the_output_is_zero(model: BlockNetwork) -> None:
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.9]), torch.tensor([0, model.null_class])
    state, c = model.embed(x, t, y)
    before = model.hidden(state)
    assert before.abs().min() > 0
    assert torch.equal(model.hidden(model.blocks[1](model.blocks[0](state, c), c)), before)
    assert torch.equal(model(x, t, y), torch.zeros(2, 6, 8, 8))


def test_initialisation_is_the_generators_alone(model: BlockNetwork) -> None:
    first = deepcopy(model.state_dict())
    torch.manual_seed(123)
    again = model.initialize(generator(0)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = model.initialize(generator(1)).state_dict()
    assert not torch.equal(first["y_embedder.embedding_table.weight"], other["y_embedder.embedding_table.weight"])


def test_initial_spreads() -> None:
    model: Any = Transformer(TRANSFORMER).initialize(generator(0))
    assert model.y_embedder.embedding_table.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.t_embedder.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.t_embedder.mlp[2].weight.std().item() == pytest.approx(0.02, rel=0.05)
    for weight in (model.blocks[0].attn.qkv.weight, model.blocks[0].mlp.fc1.weight, model.x_embedder.proj.weight):
        fan_out, fan_in = weight.flatten(1).shape
        assert weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.1)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 2, 8]))
def test_attention_by_sums_is_attention(batch: int, tokens: int, heads: int, width: int) -> None:
    q, k, v = torch.randn(3, batch, tokens, heads, width, dtype=torch.float64, generator=generator("attention"))
    expected = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2)
    torch.testing.assert_close(attention_by_sums(q, k, v), expected, rtol=1e-12, atol=1e-14)
