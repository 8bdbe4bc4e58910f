"""The U-Net: a block left out is the identity, its skip connections stay, and all that runs a Transformer runs it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scoring_context import PROCESSES, context, images
from small_training import Kill, bits, killed_at, run, untimed
from torch import Tensor

from entpruner.errors import UserError
from entpruner.evaluation.sampling import sample_images
from entpruner.models.arithmetic import places
from entpruner.models.surgery import drop_blocks
from entpruner.models.unet import UNet
from entpruner.params.arms import TRANSFORMERS_ONLY
from entpruner.params.backbones import ProcessSettings, UNetArchitecture
from entpruner.params.criteria import CRITERIA
from entpruner.params.training import Finetuning, Training
from entpruner.process import make_process
from entpruner.scores import score
from entpruner.system.randomness import generator
from entpruner.training.objective import Objective
from entpruner.training.peft import prepare
from entpruner.training.state import TrainState

ARCHITECTURE = UNetArchitecture(
    channels=8, multipliers=(1, 2), blocks_per_level=2, middle_blocks=1, input_size=8, in_channels=1, num_classes=3
)
DEPTH = 9  # encoder 0 1 | 2 3, middle 4, decoder 5 6 | 7 8
SUBSETS = st.sets(st.integers(0, DEPTH - 1), max_size=DEPTH - 1)


def network(kept_blocks: tuple[int, ...] | None = None) -> UNet:
    """Every weight non-zero, so that no zero at the start hides anything."""
    model, random = UNet(ARCHITECTURE, kept_blocks), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.initialize(random).parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return model


def idle(model: UNet, position: int) -> UNet:
    """The network with the residual function of one block set to zero."""
    model = deepcopy(model)
    for parameter in model.blocks[position].conv2.parameters():
        torch.nn.init.zeros_(parameter)
    return model


@pytest.fixture(scope="module")
def model() -> UNet:
    return network().double()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x, torch.tensor([0.2, 0.7]), torch.tensor([1, 3])


# ------------------------------------------------------------------------------------------------------- the network


def test_the_blocks_stand_in_an_encoder_a_middle_and_a_mirrored_decoder() -> None:
    assert ARCHITECTURE.depth == DEPTH
    assert [place.level for place in places(ARCHITECTURE)] == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert [place.channels for place in places(ARCHITECTURE)] == [8, 8, 16, 16, 16, 16, 16, 8, 8]
    assert "".join(place.part[0] for place in places(ARCHITECTURE)) == "eeeemdddd"


@pytest.mark.parametrize("multipliers", [(1,), (1, 2, 2)])
def test_any_number_of_levels_gives_two_channels_for_each_of_the_images(multipliers: tuple[int, ...]) -> None:
    shape = {"blocks_per_level": 1, "middle_blocks": 0, "input_size": 12, "in_channels": 3, "num_classes": 5}
    model = UNet(UNetArchitecture(channels=8, multipliers=multipliers, **shape))
    assert model.null_class == 5 and len(model.blocks) == 2 * len(multipliers)
    assert model(torch.randn(2, 3, 12, 12), torch.rand(2), torch.tensor([0, 5])).shape == (2, 6, 12, 12)


def test_a_side_that_cannot_be_halved_so_often_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"3 levels need an image size that 2\*\*2 divides"):
        UNetArchitecture(channels=8, multipliers=(1, 1, 1), input_size=6, in_channels=1, num_classes=3)


def test_every_sample_is_alone_and_time_and_class_matter(model: UNet, batch: tuple[Tensor, ...]) -> None:
    x, t, y = batch
    both = model(x, t, y)
    torch.testing.assert_close(model(x[1:], t[1:], y[1:]), both[1:], rtol=0, atol=1e-12)
    assert (model(x, t.flip(0), y) - both).abs().max() > 1e-3
    assert (model(x, t, y.flip(0)) - both).abs().max() > 1e-3


def test_hidden_vectors_are_one_a_position_before_and_behind_a_block(model: UNet, batch: tuple[Tensor, ...]) -> None:
    state, c = model.embed(*batch)
    for position, block in enumerate(model.blocks):
        before, behind = model.hidden(state), model.hidden(block(state, c))
        place = places(ARCHITECTURE)[position]
        assert before.shape == behind.shape == (2, 64 // 4**place.level, place.channels)
        assert torch.equal(before[1, 3], state.h[1, :, 0, 3])
        state = model.onward(position, block(state, c))
    assert state.skips == ()


# --------------------------------------------------------------------------------------------------- leaving blocks out


def by_hand(model: UNet, x: Tensor, t: Tensor, y: Tensor, skipped: set[int]) -> Tensor:
    """The whole network's weights, written out; a skipped block does nothing to h."""
    c = model.t_embedder(t) + model.y_embedder(y)

    def block(number: int, h: Tensor) -> Tensor:
        if number in skipped:
            return h
        b = model.blocks[number]
        scale, shift = b.modulation(c)[:, :, None, None].chunk(2, dim=1)
        return h + b.conv2(F.silu(b.norm2(b.conv1(F.silu(b.norm1(h)))) * (1 + scale) + shift))

    def merged(number: int, h: Tensor, skip: Tensor) -> Tensor:
        return model.joints[number - 1].proj(torch.cat([h, skip], dim=1))

    skip0 = block(0, model.x_embedder(x))
    skip1 = block(1, skip0)
    skip2 = block(2, model.joints[1].proj(F.avg_pool2d(skip1, 2)))
    skip3 = block(3, skip2)
    h = block(4, skip3)
    h = block(5, merged(5, h, skip3))
    h = block(6, merged(6, h, skip2))
    h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    h = block(7, merged(7, h, skip1))
    h = block(8, merged(8, h, skip0))
    return model.conv_final(F.silu(model.norm_final(h)))


@given(drop=SUBSETS)
@settings(max_examples=25)
def test_dropping_is_skipping_with_the_skip_connections_whole(
    model: UNet, batch: tuple[Tensor, Tensor, Tensor], drop: set[int]
) -> None:
    pruned = drop_blocks(model, drop)
    assert isinstance(pruned, UNet) and pruned.kept_blocks == tuple(sorted(set(range(DEPTH)) - drop))
    torch.testing.assert_close(pruned(*batch), by_hand(model, *batch, drop), rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", range(DEPTH))
def test_a_dropped_block_is_one_whose_residual_function_is_zero(
    model: UNet, batch: tuple[Tensor, Tensor, Tensor], block: int
) -> None:
    assert torch.equal(drop_blocks(model, {block})(*batch), idle(model, block)(*batch))
    assert not torch.equal(drop_blocks(model, {block})(*batch), model(*batch))


# ------------------------------------------------------------------------------------------------------------ scoring


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("kept", [None, (1, 2, 4, 5, 7)])
def test_removal_outputs_are_those_of_dropping_each_block(
    process: ProcessSettings, kept: tuple[int, ...] | None
) -> None:
    model = network(kept)
    batch = next(context(process, model).draws())
    inputs = batch.x_t, batch.t, batch.y
    with torch.no_grad():
        for position, output in model.removals(*inputs):
            pruned = model if position is None else drop_blocks(model, {model.kept_blocks[position]})
            assert torch.equal(output, pruned(*inputs))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("criterion", ["ced", "sensitivity", "ld_pruner", "similarity_mse"])
def test_a_block_without_a_residual_counts_for_nothing(process: ProcessSettings, criterion: str) -> None:
    scores = score(criterion, context(process, idle(network(), 3), ld_pruner="one_step"))
    assert scores.blocks == tuple(range(DEPTH))
    assert scores.value[3] == 0
    assert all(value != 0 for block, value in enumerate(scores.value) if block != 3)


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - TRANSFORMERS_ONLY))
def test_a_pruned_network_is_scored_in_the_original_numbering(criterion: str) -> None:
    scores = score(criterion, context(model=network((1, 4, 8)), ld_pruner="sampling"))
    assert sorted(scores.order) == [1, 4, 8]


@pytest.mark.parametrize("criterion", TRANSFORMERS_ONLY)
def test_a_criterion_that_knows_transformers_alone_says_so(criterion: str) -> None:
    with pytest.raises(UserError, match="knows transformers alone, not a U-Net"):
        score(criterion, context(model=network(), remove=2))


# --------------------------------------------------------------------------------------------- training and sampling


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("kept", [None, (1, 2, 4, 5, 7)])
def test_the_loss_of_either_process_reaches_every_weight(
    process: ProcessSettings, kept: tuple[int, ...] | None
) -> None:
    model = network(kept)
    batch = next(context(process, model).draws())
    losses = make_process(process).losses(model, batch.x, batch.noise, batch.t, batch.y)
    assert all(loss.shape == (16,) and loss.isfinite().all() for loss in losses.values())
    losses["loss"].mean().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0] == []


SETTINGS = Training(steps=30, batch_size=16, learning_rate=5e-3, log_every=5, checkpoint_every=4)


def test_training_lowers_the_loss_and_goes_on_exactly_after_a_kill(tmp_path: Path) -> None:
    def trained(folder: str, objective: Objective | None = None) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
        state = TrainState.start(UNet(ARCHITECTURE).initialize(generator(0))).drop_blocks({3, 6})
        curve = run(state, tmp_path / folder, objective, SETTINGS, images=images())
        return bits(state), untimed(curve)

    whole = trained("whole")
    _, curve = whole
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    assert curve[-1]["blocks"] == DEPTH - 2
    with pytest.raises(Kill):
        trained("killed", killed_at(19))
    assert trained("killed") == whole


def test_moments_move_along_with_the_blocks() -> None:
    state = TrainState.start(network())
    for number, moments in enumerate(state.moments.values()):
        moments["exp_avg"].fill_(number)
    pruned = state.drop_blocks({0, 4})
    assert pruned.moments.keys() == dict(pruned.model.named_parameters()).keys()
    before, after = state.moments["blocks.5.conv1.weight"], pruned.moments["blocks.3.conv1.weight"]
    assert torch.equal(after["exp_avg"], before["exp_avg"])


@pytest.mark.parametrize("method", ["bitfit", "lora", "difffit", "adapters"])
def test_a_method_that_trains_a_part_of_the_weights_is_refused(method: str) -> None:
    with pytest.raises(UserError, match=f"finetune.method: got {method}; allowed for this network: full"):
        prepare(network(), Finetuning.model_validate({"steps": 1, "method": method}), generator(0))
    prepare(network(), Finetuning(steps=1), generator(0))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_a_pruned_network_samples_images(process: ProcessSettings) -> None:
    case = context(process)
    sampling = case.sampling.model_copy(update={"samples": 4, "batch_size": 4})
    samples, labels = sample_images(network((1, 4, 8)), case.process, sampling, seed=0, device=case.device)
    assert samples.shape == (4, 1, 8, 8) and labels.tolist() == [0, 1, 2, 0]
