"""Masked knowledge distillation (Fang et al. 2025, "TinyFusion"): a pruned network also learns from the unpruned one.

Teacher and student get the same x_t, t and labels, of which some are the null class. Two things differ from TinyFusion:
each kept block is matched with the same block of the teacher, and the weight of the features does not decay.
"""

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork, PartedNetwork
from entpruner.params.training import Distillation
from entpruner.process import Process
from entpruner.system import parallel
from entpruner.training.objective import Objective


def distilled(process: Process, teacher: BlockNetwork, settings: Distillation) -> Objective:
    """(1 - output) times the data's loss, plus output times the distance to the teacher's output, plus features times
    the mean ``masked_distance`` of the hidden states behind the kept blocks. The teacher is not trained.
    """

    def objective(model: BlockNetwork, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> Tensor:
        x_t = process.add_noise(x, noise, t)
        output, states = with_states(model, x_t, t, y)
        with torch.no_grad():
            target, teachers = with_states(teacher, x_t, t, y)
        own = process.losses(lambda *_: output, x, noise, t, y)["loss"]  # reuses the output
        imitation = process.distillation_loss(output.to(x.dtype), target.to(x.dtype), x_t, t)
        apart = [masked_distance(state, teachers[block], settings.cut) for block, state in states.items()]
        features = torch.stack(apart).mean()
        return (1 - settings.output) * own.mean() + settings.output * imitation.mean() + settings.features * features

    return objective


def with_states(model: BlockNetwork, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The network's output (B, 2C, H, W), and the hidden states (B, T, D) behind its blocks, by original number."""
    assert isinstance(model, PartedNetwork), "params refuse distillation of other networks"
    state, c = model.embed(x, t, y)
    states = {}
    for position, number in enumerate(model.kept_blocks):
        state = model.through(position, state, c)
        states[number] = model.hidden(state)
        state = model.onward(position, state)
    return model.head(state, c), states


def masked_distance(student: Tensor, teacher: Tensor, cut: float) -> Tensor:
    """Mean squared difference of the entries that are within ``cut`` standard deviations of the mean in both networks.

    Mean and deviation are those of all entries of a state (B, T, D). The entries outside are massive activations, which
    are few and huge and would dominate the loss. The distance is 0 if no entry is left. If several processes share a
    batch, they share mean, deviation and count, and the mean of their results is the distance of the whole batch.
    """
    counted = _usual(student, cut) & _usual(teacher, cut)
    squared = torch.where(counted, student - teacher, 0) ** 2
    return squared.sum() / parallel.mean(counted.sum()).clamp(min=1)


def _usual(state: Tensor, cut: float) -> Tensor:
    return (state - parallel.mean(state.mean())).abs() <= cut * _deviation(state)


def _deviation(state: Tensor) -> Tensor:
    if parallel.count() == 1:
        return state.std()
    entries = state.numel() * parallel.count()
    variance = parallel.mean(((state - parallel.mean(state.mean())) ** 2).mean())
    return (variance * entries / (entries - 1)).sqrt()
