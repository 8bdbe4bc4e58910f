"""Masked knowledge distillation (Fang et al. 2025, "TinyFusion"): a pruned network learns from the unpruned one too.

Teacher and student see the same x_t, t and labels, the dropped ones included. Two things differ from TinyFusion: each
block is matched with the teacher's same block, whichever were kept, and the weight of the features does not decay.
"""

import torch
from torch import Tensor

from entpruner.models.network import BlockNetwork
from entpruner.params.training import Distillation
from entpruner.process import Process
from entpruner.system import parallel
from entpruner.training.loop import Objective


def distilled(process: Process, teacher: BlockNetwork, settings: Distillation) -> Objective:
    """(1 - output) times the data's loss + output times the distance to the teacher's output + features times that of
    the hidden states, which is the mean over the kept blocks of ``masked_distance``. The teacher isn't trained.
    """

    def objective(model: BlockNetwork, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> Tensor:
        x_t = process.add_noise(x, noise, t)
        output, states = with_states(model, x_t, t, y)
        with torch.no_grad():
            target, teachers = with_states(teacher, x_t, t, y)
        own = process.losses(lambda *_: output, x, noise, t, y)["loss"]  # the network, already evaluated at x_t
        imitation = process.distillation_loss(output.to(x.dtype), target.to(x.dtype), x_t, t)
        apart = [masked_distance(state, teachers[block], settings.cut) for block, state in states.items()]
        features = torch.stack(apart).mean()
        return (1 - settings.output) * own.mean() + settings.output * imitation.mean() + settings.features * features

    return objective


def with_states(model: BlockNetwork, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The network's output (B, 2C, H, W), and the hidden states (B, T, D) after its blocks, by original number."""
    state, c = model.embed(x, t, y)
    states = {}
    for position, number in enumerate(model.kept_blocks):
        state = model.through(position, state, c)
        states[number] = model.hidden(state)
        state = model.onward(position, state)
    return model.head(state, c), states


def masked_distance(student: Tensor, teacher: Tensor, cut: float) -> Tensor:
    """Mean squared difference over the entries within ``cut`` standard deviations of the mean in both networks.

    Mean and deviation are those of all entries of a state (B, T, D). What lies further are massive activations: few,
    huge, and else nearly all of the loss. 0 where no entry is left. Where several processes share a batch, mean,
    deviation and count are those of all their states, and the mean of what they return is the whole batch's distance.
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
