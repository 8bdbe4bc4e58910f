"""Recovery of a pruned transformer by low-rank distillation, with one copy of the network in memory.

The teacher is the network with all its blocks and without its adapters. The student is the same network with its
adapters and with the blocks skipped that will go. It learns, on captured calls, to answer as the teacher does:

    loss = output · mean (student - teacher)² / mean teacher²  +  seams · mean (s - t)²

where s and t are the states that enter the block behind each gap, every token scaled to length 1. In the end the
adapters are merged into the weights. The two terms are those of released block-pruned models (BK-SDM, Kim et al. 2024).
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entpruner.errors import Stopped
from entpruner.params.pipelines import Recovery
from entpruner.pipelines.capture import Captured, on
from entpruner.pipelines.replay import Call, Denoiser, arguments, forwards, handed_on, slots_of
from entpruner.system.files import whole_file
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator, seed_of
from entpruner.system.stopping import StopRequest

log = logging.getLogger(__name__)

Streams = list[Tensor]
"""The states of one token stream or two, at every seam in turn."""


@dataclass
class Distillation:
    """A network with adapters, and the blocks that its student passes over."""

    subject: Denoiser
    gone: tuple[str, ...]

    def teacher(self, call: Call) -> tuple[Tensor, Streams]:
        """The output and the states at the seams of the whole network without adapters."""
        self.enable(False)
        with torch.no_grad():
            output, visits = self.subject.watched(call)
        self.enable(True)
        slots = handed_on(visits)
        self.passing = {
            self.subject.named[v.name]: self.subject.passing(v, slots) for v in visits if v.name in self.gone
        }
        behind = [v for before, v in pairwise(visits)
                  if before.name in self.gone and v.name not in self.gone]  # fmt: skip
        self.seams = {v.name: list(slots_of(v, slots).values()) for v in behind}
        return output, [v.given[name] for v in behind for name in self.seams[v.name]]

    def loss(self, call: Call, settings: Recovery, prediction: Callable[[Tensor], Tensor], weight: float) -> float:
        """The loss of a call, whose gradients, times ``weight``, are added to the parameters'.

        The backward pass is made while blocks are passed over: checkpointed blocks run in it again.
        """
        target, wanted = self.teacher(call)
        states: Streams = []
        watched = {self.subject.named[name]: self.watching(name, states) for name in self.seams}
        with forwards(self.passing | watched):
            apart, scale = prediction(self.subject(call)) - prediction(target), prediction(target)
            loss = settings.output * apart.float().square().mean() / scale.float().square().mean().clamp(min=1e-12)
            for state, teacher in zip(states, wanted, strict=True):
                distance = F.normalize(state.float(), dim=-1) - F.normalize(teacher.float(), dim=-1)
                loss = loss + settings.seams * distance.square().sum(-1).mean() / len(wanted)
            torch.autograd.backward(weight * loss)
        return float(loss.detach())

    def watching(self, name: str, states: Streams) -> Callable[..., Any]:
        block, forward, wanted = self.subject.named[name], self.subject.named[name].forward, len(self.seams[name])

        def run(*args: Any, **kwargs: Any) -> Any:
            given = arguments(block, args, kwargs)
            if len(states) < sum(map(len, self.seams.values())):  # not again in the backward pass
                states.extend(given[stream] for stream in self.seams[name][:wanted])
            return forward(*args, **kwargs)

        return run

    def enable(self, on: bool) -> None:
        for module in self.subject.network.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(on)


def recovered(
    subject: Denoiser,
    gone: tuple[str, ...],
    calls: Sequence[Captured],
    prediction: Callable[[Tensor], Tensor],
    settings: Recovery,
    *,
    seed: int,
    device: torch.device,
    checkpointing: bool,
    state: Path,
) -> list[float]:
    """Train the blocks that stay, and merge what they learned into their weights. Returns the loss of every step.

    ``state`` is the file from which a stopped training goes on, and which is deleted at the end.
    Raises Stopped if the process was asked to stop.
    """
    adapters = with_adapters(subject, gone, settings.rank, seed)
    optimizer = torch.optim.AdamW(adapters.values(), lr=settings.learning_rate, weight_decay=0.0)
    losses = resumed(state, adapters, optimizer)
    if checkpointing and getattr(subject.network, "_supports_gradient_checkpointing", False):
        subject.network.enable_gradient_checkpointing()
        subject.network.train()
    distillation = Distillation(subject, gone)
    with StopRequest() as stop, Progress(len(losses), settings.steps, settings.batch_size) as progress:
        for step in range(len(losses), settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate(step, settings)
            chosen = torch.randint(len(calls), (settings.batch_size,), generator=generator(seed, "recovery", step))
            found = [
                distillation.loss(
                    tree_map(lambda x: on(x, device), calls[i].call), settings, prediction, 1 / len(chosen)
                )
                for i in chosen.tolist()
            ]
            optimizer.step()
            optimizer.zero_grad()
            losses.append(sum(found) / len(found))
            progress.set_postfix_str(f", loss {losses[-1]:.4g}")
            progress.update()
            if stop.made or (step + 1) % settings.checkpoint_every == 0:
                save(state, adapters, optimizer, losses)
            if stop.made:
                raise Stopped(f"stopped after step {step + 1} of {settings.steps}; the same command goes on")
    merge(subject.network)
    subject.network.eval()
    state.unlink(missing_ok=True)
    return losses


def rate(step: int, settings: Recovery) -> float:
    """The share of the learning rate: a linear rise, and then half a cosine."""
    warm = max(1, round(settings.warmup * settings.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def with_adapters(subject: Denoiser, gone: tuple[str, ...], rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Put adapters beside the linear layers of the blocks that stay. Only their parameters, in float32, are trained."""
    targets = [
        f"{block}.{name}"
        for block, module in subject.named.items()
        if block not in gone
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    subject.network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "adapters"))
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), subject.network)
    parameters = {name: p for name, p in subject.network.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Add the adapters to the weights, and put the plain layers back."""
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
    network.requires_grad_(True)


def save(file: Path, adapters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    kept = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for name, parameter in adapters.items():
        kept[name] = parameter.detach()
        kept |= {f"{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    with whole_file(file) as partial:
        save_file({name: value.contiguous().cpu() for name, value in kept.items()}, partial)


@torch.no_grad()
def resumed(file: Path, adapters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> list[float]:
    """The losses until now, after adapters and moments are those of the file, if there is one."""
    if not file.exists():
        return []
    kept = load_file(file)
    for name, parameter in adapters.items():
        parameter.copy_(kept[name])
        moments = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[parameter] = {key: kept[f"{name}/{key}"] for key in moments}
        optimizer.state[parameter] |= {key: kept[f"{name}/{key}"].to(parameter.device) for key in moments[1:]}
    losses: list[float] = kept["losses"].tolist()
    log.info("going on after step %d", len(losses))
    return losses
