"""Distillation: what is minimised, what is left out of it, and that it resumes."""

from pathlib import Path

import pytest
import torch
from small_training import Kill, bits, drawn, killed_at, run
from torch import Tensor

from entpruner.models.arithmetic import macs, training_flops
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Diffusion, Flow, ProcessSettings
from entpruner.params.training import Distillation, Finetuning
from entpruner.process import Process, make_process
from entpruner.system.randomness import generator
from entpruner.training.distill import distilled, masked_distance, with_states
from entpruner.training.objective import Objective, data_loss
from entpruner.training.state import TrainState

ARCHITECTURE = Architecture(
    depth=4, hidden_size=8, num_heads=2, patch_size=4, input_size=8, in_channels=1, num_classes=3
)
PROCESSES = pytest.mark.parametrize("settings", [Flow(), Diffusion()], ids=["flow", "diffusion"])
ALL = Distillation(output=0.7, features=0.3)


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> Transformer:
    return drawn(Transformer(ARCHITECTURE).to(dtype), seed)


def batch(process: Process, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = generator("distill", "batch")
    x, noise = torch.randn(2, 6, 1, 8, 8, generator=draw).to(dtype)
    return x, noise, process.draw_times(6, draw), torch.tensor([0, 1, 2, 3, 0, 3])  # 3 is the null class


def gradients(model: Transformer, objective: Objective, process: Process) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(objective(model, *batch(process)))
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# ----------------------------------------------------------------------------------------------------- the objective


@PROCESSES
def test_a_student_equal_to_its_teacher_has_only_the_datas_loss_left(settings: ProcessSettings) -> None:
    process, student = make_process(settings), network()
    own, both = data_loss(process), distilled(process, network(), ALL)
    torch.testing.assert_close(both(student, *batch(process)), 0.3 * own(student, *batch(process)))
    expected = gradients(student, own, process)
    for name, gradient in gradients(student, both, process).items():
        torch.testing.assert_close(gradient, 0.3 * expected[name], msg=name)


@PROCESSES
def test_the_objective_is_the_weighted_sum_of_its_three_terms(settings: ProcessSettings) -> None:
    process, teacher = make_process(settings), network()
    student = drop_blocks(network(1), {1, 2})
    x, noise, t, y = batch(process)
    x_t = process.add_noise(x, noise, t)
    output, states = with_states(student, x_t, t, y)
    target, teachers = with_states(teacher, x_t, t, y)
    apart = [masked_distance(states[block], teachers[block], ALL.cut) for block in (0, 3)]
    expected = 0.3 * process.losses(student, x, noise, t, y)["loss"].mean()
    expected += 0.7 * process.distillation_loss(output, target, x_t, t).mean() + 0.3 * (apart[0] + apart[1]) / 2
    torch.testing.assert_close(distilled(process, teacher, ALL)(student, x, noise, t, y), expected)


def test_each_block_is_matched_with_the_teachers_same_block() -> None:
    """Up to the first block that is gone, a pruned network's hidden states are its teacher's."""
    process, teacher = make_process(Flow()), network()
    x, _, t, y = batch(process)
    output, whole = with_states(teacher, x, t, y)
    assert torch.equal(output, teacher(x, t, y))
    assert list(whole) == [0, 1, 2, 3]
    states = with_states(drop_blocks(teacher, {2}), x, t, y)[1]
    assert list(states) == [0, 1, 3]
    assert all(torch.equal(states[block], whole[block]) for block in (0, 1))
    assert not torch.allclose(states[3], whole[3])


def test_teacher_and_student_see_the_same_noised_images_times_and_dropped_labels() -> None:
    process, teacher, student = make_process(Flow()), network(), network(1)
    seen: list[tuple[Tensor, ...]] = []
    for model in (teacher, student):
        for embedder in (model.x_embedder, model.y_embedder, model.t_embedder):
            embedder.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    x, noise, t, y = batch(process)
    distilled(process, teacher, ALL)(student, x, noise, t, y)
    assert len(seen) == 6  # one evaluation of each network
    for one, other in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(one[0], other[0])
    assert 3 in y


def test_the_teacher_gets_no_gradient() -> None:
    process, teacher, student = make_process(Flow()), network(), network(1)
    torch.autograd.backward(distilled(process, teacher, ALL)(student, *batch(process)))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


# ----------------------------------------------------------------------------------------------- distance of outputs


@PROCESSES
def test_outputs_are_as_far_apart_as_their_predictions(settings: ProcessSettings) -> None:
    process = make_process(settings)
    x, noise, t, _ = batch(process)
    x_t = process.add_noise(x, noise, t)
    target = torch.cat([noise, noise], dim=1)
    assert not process.distillation_loss(target, target, x_t, t).any()
    output = target.clone().requires_grad_(True)
    shifted = torch.cat([output[:, :1] + 0.5, output[:, 1:]], dim=1)
    loss = process.distillation_loss(shifted, target, x_t, t)
    assert (loss >= 0.25 * (1 - 1e-12)).all()
    (gradient,) = torch.autograd.grad(loss.sum(), output)
    torch.testing.assert_close(gradient[:, :1], torch.full_like(x, 2 * 0.5 / 64))  # of the mean square over 64 pixels


def test_the_variance_of_a_diffusion_is_learned_from_the_teachers() -> None:
    process = make_process(Diffusion())
    x, noise, t, _ = batch(process)
    x_t = process.add_noise(x, noise, t)
    target = torch.cat([noise, torch.full_like(noise, 0.4)], dim=1)

    def loss(variance: float) -> float:
        output = torch.cat([noise, torch.full_like(noise, variance)], dim=1)
        return process.distillation_loss(output, target, x_t, t).mean().item()

    assert loss(0.4) == 0
    assert loss(0.6) > 0 and loss(0.2) > 0
    assert loss(0.8) > loss(0.6) and loss(0.0) > loss(0.2)


# --------------------------------------------------------------------------------------------------- hidden states


def test_a_massive_activation_is_cut_wherever_it_is() -> None:
    draw = generator("massive")
    student, teacher = torch.randn(2, 4, 4, 8, generator=draw, dtype=torch.float64).clamp(-1.5, 1.5)
    calm = (student - teacher) ** 2
    assert masked_distance(student, teacher, cut=100) == calm.mean()
    for massive in (student, teacher):
        kept = massive[1, 2, 3].clone()
        massive[1, 2, 3] = 1e4
        left = (calm.sum() - calm[1, 2, 3]) / (calm.numel() - 1)
        torch.testing.assert_close(masked_distance(student, teacher, cut=2), left)
        massive[1, 2, 3] = kept


def test_only_what_is_counted_has_a_gradient() -> None:
    student = torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0], requires_grad=True)
    torch.autograd.backward(masked_distance(student, torch.zeros(5), cut=1.5))
    torch.testing.assert_close(student.grad, torch.tensor([0.5, 1.0, 1.5, 2.0, 0.0]))


def test_where_no_entry_is_left_nothing_is_said() -> None:
    assert masked_distance(torch.tensor([1.0, -1.0]), torch.tensor([2.0, -2.0]), cut=0.1) == 0


# -------------------------------------------------------------------------------------------------------- in training


SETTINGS = Finetuning(
    steps=6, batch_size=4, learning_rate=1e-2, log_every=2, checkpoint_every=2, distillation=Distillation()
)


def trained(folder: Path, objective: Objective, **changes: float) -> TrainState:
    state = TrainState.start(drop_blocks(network(1, torch.float32), {1}))
    run(state, folder, objective, SETTINGS.model_copy(update=changes))
    return state


def test_the_student_learns_the_teacher(tmp_path: Path) -> None:
    process, teacher = make_process(Flow()), network(0, torch.float32)
    objective = distilled(process, teacher, Distillation(output=1, features=0))
    before = objective(drop_blocks(network(1, torch.float32), {1}), *batch(process, torch.float32))
    state = trained(tmp_path, objective, steps=60, batch_size=10)
    after = objective(state.model, *batch(process, torch.float32))
    assert after < 0.5 * before


def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    objective = distilled(make_process(Flow()), network(0, torch.float32), Distillation())
    with pytest.raises(Kill):
        trained(tmp_path / "killed", killed_at(5, objective))
    assert bits(trained(tmp_path / "killed", objective)) == bits(trained(tmp_path / "whole", objective))


def test_the_teachers_forward_pass_is_counted() -> None:
    alone = SETTINGS.model_copy(update={"distillation": None})
    taught, untaught = (training_flops(ARCHITECTURE, (0, 1, 3), 4, 6, tuning) for tuning in (SETTINGS, alone))
    assert taught - untaught == 2 * macs(ARCHITECTURE) * 4 * 6
