from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from entpruner.evaluation import cost
from entpruner.models import arithmetic
from entpruner.models.checkpoints import build
from entpruner.models.transformer import Transformer
from entpruner.models.unet import UNet
from entpruner.params.backbones import SIZES, Architecture, Backbone, Diffusion, UNetArchitecture


def dit(size: str, patch: int = 2, side: int = 32) -> Architecture:
    """A published network, on latents of 4 channels."""
    return Backbone(process=Diffusion(), preset=f"DiT-{size}/{patch}").architecture(side, 4, 1000)


SMALL = Architecture(
    depth=4, hidden_size=32, num_heads=2, patch_size=2, input_size=8, in_channels=1, num_classes=5, mlp_ratio=3.0
)
UNET = UNetArchitecture(
    channels=8, multipliers=(1, 2, 2), blocks_per_level=1, middle_blocks=1, input_size=8, in_channels=3, num_classes=5
)


def on_meta(architecture: Architecture, blocks: int | None = None) -> Transformer:
    with torch.device("meta"):
        return Transformer(architecture, None if blocks is None else tuple(range(blocks)))


# The DiT paper's "Gflops" (Table 4, and Section 4 for 512 pixels) are multiply-accumulates.
@pytest.mark.parametrize(
    ("size", "patch", "side", "gmacs"),
    [
        ("S", 2, 32, 6.06),
        ("B", 2, 32, 23.01),
        ("L", 2, 32, 80.70),
        ("XL", 2, 32, 118.62),
        ("XL", 2, 64, 524.5),
        ("XL", 4, 32, 29.04),
    ],
)
def test_macs_agree_with_the_published_table(size: str, patch: int, side: int, gmacs: float) -> None:
    assert arithmetic.macs(dit(size, patch, side)) / 1e9 == pytest.approx(gmacs, rel=5e-3)


@pytest.mark.parametrize(("blocks", "gmacs"), [(20, 84.73), (14, 59.32), (7, 29.67)])
def test_macs_of_a_depth_pruned_network(blocks: int, gmacs: float) -> None:
    assert arithmetic.macs(dit("XL"), blocks) / 1e9 == pytest.approx(gmacs, rel=5e-3)


@pytest.mark.parametrize(
    ("size", "count"), [("S", 32_963_360), ("B", 130_512_416), ("L", 458_102_816), ("XL", 675_129_632)]
)
def test_parameters_agree_with_the_published_table(size: str, count: int) -> None:
    assert cost.parameters(on_meta(dit(size))) == arithmetic.parameters_of(dit(size), range(SIZES[size][0])) == count


@pytest.mark.parametrize("architecture", [SMALL, UNET], ids=["transformer", "U-Net"])
@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (1, 3), (2,)])
def test_parameters_are_counted_without_building_the_network(architecture: Any, kept: tuple[int, ...]) -> None:
    assert arithmetic.parameters_of(architecture, kept) == cost.parameters(build(architecture, kept))


@pytest.mark.parametrize("blocks", [4, 1])
def test_macs_agree_with_torchs_flop_counter(blocks: int) -> None:
    model = Transformer(SMALL, tuple(range(blocks)))
    x, t, y = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 5])
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(x, t, y)
    assert counter.get_total_flops() == 2 * 2 * arithmetic.macs(SMALL, blocks)  # 2 FLOPs a MAC, 2 images


@pytest.mark.parametrize("kept", [(0, 1, 2, 3, 4, 5, 6), (1, 3, 6), (4,)])
def test_a_unets_macs_agree_with_torchs_flop_counter(kept: tuple[int, ...]) -> None:
    model = UNet(UNET, kept)
    x, t, y = torch.randn(2, 3, 8, 8), torch.rand(2), torch.tensor([0, 5])
    with FlopCounterMode(display=False) as counter:
        model(x, t, y)
    assert counter.get_total_flops() == 2 * 2 * arithmetic.unet_macs(UNET, kept)


def test_training_flops_are_three_forward_passes_of_two_flops_a_mac() -> None:
    assert arithmetic.training_flops(SMALL, range(4), batch_size=8, steps=10) == 3 * 2 * arithmetic.macs(SMALL) * 8 * 10
    assert arithmetic.training_flops(SMALL, (1, 3), batch_size=8, steps=6) == 3 * 2 * arithmetic.macs(SMALL, 2) * 8 * 6
    whole, pruned = (arithmetic.training_flops(UNET, kept, batch_size=8, steps=6) for kept in (range(7), (1, 5)))
    forward = [arithmetic.unet_macs(UNET, kept) for kept in (range(7), (1, 5))]
    assert [whole, pruned] == [3 * 2 * macs * 48 for macs in forward]


def test_latency_takes_turns_and_pairs_the_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that slows down tenfold half way, the paired speed-up doesn't notice."""
    now, passes, order = 0.0, 0, []

    class Fake(torch.nn.Module):
        architecture = SMALL

        def __init__(self, blocks: int) -> None:
            super().__init__()
            self.blocks = blocks

        def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> None:
            nonlocal now, passes
            passes += 1
            order.append(self.blocks)
            now += self.blocks * len(x) * (1 if passes <= 8 else 10)

    monkeypatch.setattr(cost, "clock", lambda device: now)
    result = cost.latency({"4": Fake(4), "2": Fake(2)}, "4", batch_size=3, repeats=7, device=torch.device("cpu"))
    assert order == [4, 2] * 8  # one round of warm-up and seven that count
    assert result["4"].speedup == 1 and result["4"].speedup_quartiles == (1, 1)
    assert result["2"].speedup == 2 and result["2"].speedup_quartiles == (2, 2)
    assert result["2"].seconds_per_image == 20 and result["2"].seconds_per_image_quartiles == (2, 20)


def test_latency_of_real_networks_on_this_machine() -> None:
    models = {str(blocks): Transformer(SMALL, tuple(range(blocks))) for blocks in (4, 1)}
    result = cost.latency(models, "4", batch_size=2, repeats=5, device=torch.device("cpu"))
    assert set(result) == {"4", "1"}
    for entry in result.values():
        low, high = entry.seconds_per_image_quartiles
        assert 0 < low <= entry.seconds_per_image <= high
        assert entry.repeats == 5 and entry.batch_size == 2
