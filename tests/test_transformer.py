"""The network's initialisation, and its null class."""

from copy import deepcopy

import pytest
import torch

from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture


@pytest.fixture
def model():
    architecture = Architecture(
        depth=2, hidden_size=48, num_heads=4, patch_size=2, input_size=8, in_channels=3, num_classes=7
    )
    return Transformer(architecture)


def test_at_first_every_block_is_the_identity_and_the_output_is_zero(model):
    model.initialize(torch.Generator().manual_seed(0))
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.9]), torch.tensor([0, model.null_class])
    tokens, c = model.embed(x, t, y)
    assert torch.equal(model.blocks[1](model.blocks[0](tokens, c), c), tokens)
    assert torch.equal(model(x, t, y), torch.zeros(2, 6, 8, 8))


def test_initial_spreads(model):
    model.initialize(torch.Generator().manual_seed(0))
    assert model.y_embedder.embedding_table.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.t_embedder.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.t_embedder.mlp[2].weight.std().item() == pytest.approx(0.02, rel=0.05)
    for weight in (model.blocks[0].attn.qkv.weight, model.blocks[0].mlp.fc1.weight, model.x_embedder.proj.weight):
        fan_out, fan_in = weight.flatten(1).shape
        assert weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.1)


def test_initialisation_is_the_generators_alone(model):
    first = deepcopy(model.initialize(torch.Generator().manual_seed(0)).state_dict())
    torch.manual_seed(123)
    again = model.initialize(torch.Generator().manual_seed(0)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
