"""What scoring and recovery will need: hours by a short trial, memory and disk by arithmetic."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from entpruner.params.pipelines import OwnPipeline
from entpruner.pipelines.replay import Call, Denoiser

ADAMW, KEPT = 16, 12
"""Bytes of a weight that is trained: itself, its gradient and two moments in float32; and without the gradient."""


class Needs(NamedTuple):
    """Seconds and bytes."""

    call: float
    scoring: float
    recovery: float
    memory: int
    """Bytes of the device's memory while it scores: the weights, and what every block hands on."""
    training: int
    """Bytes of the device's memory while it recovers, without what the backward pass needs of the blocks' insides."""
    state: int
    """Bytes of the disk: a state of the training takes them, and the one that replaces it while it is written."""

    def told(self) -> str:
        """Say what is needed, in two lines."""
        end = time.strftime("%a %H:%M", time.localtime(time.time() + self.scoring + self.recovery))
        score, train, disk = (f"{size / 1e9:.2g} GB" for size in (self.memory, self.training, self.state))
        hours = f"scoring {self.scoring / 3600:.2g} h, recovery {self.recovery / 3600:.2g} h, done about {end}"
        recovery = f", {train} and what the backward pass needs to recover; disk: {disk} meanwhile"
        return f"a call takes {self.call:.3g} s: {hours}\nmemory: {score} to score" + recovery * bool(self.recovery)


def needed(subject: Denoiser, call: Call, seconds: float, ratio: float, settings: OwnPipeline) -> Needs:
    """What a pruning by ``ratio`` needs, where a call takes so many ``seconds``."""
    how, network, stays = settings.recovery, subject.network, 1 - ratio
    again, backward = settings.compute.gradient_checkpointing, {"lora": 1, "full": 2}[how.method]
    passes = how.steps * how.batch_size * (1 + stays * (1 + backward + again))
    _, visits = subject.watched(call)
    weights = size(network.parameters()) + size(network.buffers())
    states = size(x for x in tree_leaves([visit.output for visit in visits]) if isinstance(x, Tensor))
    layers = [layer for layer in subject.blocks.modules() if isinstance(layer, nn.Linear)]
    trained = sum(how.rank * (layer.in_features + layer.out_features) for layer in layers) * stays
    if how.method == "full":
        every, blocks = (sum(weight.numel() for weight in part.parameters()) for part in (network, subject.blocks))
        trained = every - ratio * blocks
    trained *= bool(how.steps)
    return Needs(
        call=seconds,
        scoring=settings.scoring.draws * (len(subject.units) + 1) / 2 * seconds,
        recovery=passes * seconds / settings.compute.processes,
        memory=weights + states,
        training=weights + states + round(ADAMW * trained / settings.compute.processes),
        state=2 * round(KEPT * trained),
    )


def size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@torch.no_grad()
def seconds(subject: Denoiser, call: Call) -> float:
    """Seconds of a call: the least of some runs, after one that does not count."""
    found = []
    for _ in range(4):
        start = time.perf_counter()
        subject(call)[..., :1].cpu()  # waits for the device
        found.append(time.perf_counter() - start)
    return min(found[1:])
