"""Classifier-free guidance."""

import pytest
import torch

from entpruner.params.backbones import Architecture
from entpruner.process.guidance import guided


class Recorder:
    """A network whose output is the label plus the channel's number; it remembers what it was asked."""

    def __init__(self, in_channels):
        self.architecture = Architecture(
            depth=1, hidden_size=4, num_heads=1, patch_size=1, input_size=2, in_channels=in_channels, num_classes=5
        )
        self.null_class = 5
        self.calls = []

    def __call__(self, x, t, y):
        self.calls.append((x, t, y))
        channels = torch.arange(2 * x.shape[1], dtype=x.dtype).view(1, -1, 1, 1)
        return (y.view(-1, 1, 1, 1) + channels).expand(-1, -1, *x.shape[2:])


@pytest.mark.parametrize(("in_channels", "guided_channels"), [(4, 3), (4, 4), (4, 9), (1, 3)])
def test_guides_the_first_image_channels_only(in_channels, guided_channels):
    model, scale = Recorder(in_channels), 2.5
    x, t, y = torch.zeros(2, in_channels, 2, 2), torch.tensor([3, 4]), torch.tensor([1, 2])
    output = guided(model, scale, guided_channels)(x, t, y)
    conditional, unconditional = model(x, t, y), model(x, t, torch.full_like(y, 5))
    channels = min(in_channels, guided_channels)
    expected = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(output[:, :channels], expected[:, :channels])
    torch.testing.assert_close(output[:, channels:], conditional[:, channels:])


def test_one_evaluation_of_both_halves_with_the_null_class_of_this_network():
    model = Recorder(3)
    guided(model, 1.5, 3)(torch.rand(2, 3, 2, 2), torch.tensor([3, 4]), torch.tensor([1, 2]))
    [(x, t, y)] = model.calls
    assert torch.equal(x[:2], x[2:])
    assert t.tolist() == [3, 4, 3, 4]
    assert y.tolist() == [1, 2, 5, 5]


def test_scale_one_is_the_network_itself():
    model = Recorder(3)
    assert guided(model, 1.0, 3) is model
