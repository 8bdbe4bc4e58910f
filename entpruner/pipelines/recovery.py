"""Recovery of a pruned transformer by distillation: without some blocks, it learns to do what it does with them.

The teacher is the network with all its blocks. The student is the network that passes over the blocks that will go. On
captured calls it learns to answer as the teacher does:

    loss = output · mean (student - teacher)² / mean teacher²  +  seams · mean (s - t)²

where s and t are the states that enter the block behind each gap, every token scaled to length 1. The two terms are
those of released block-pruned models (BK-SDM, Kim et al. 2024). What is trained is either low-rank adapters, which are
merged into the weights in the end, or all weights. Adapters need one copy of the network, which is the teacher while
they are off. All weights need a second copy, which several processes may share.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from entpruner.errors import Stopped
from entpruner.params.compute import Compute
from entpruner.params.pipelines import OwnPipeline, Recovery
from entpruner.pipelines.blocks import COPIES
from entpruner.pipelines.capture import Captured
from entpruner.pipelines.replay import Call, Denoiser, arguments, forwards, handed_on, slots_of
from entpruner.system import parallel
from entpruner.system.files import whole_file
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator, seed_of
from entpruner.system.stopping import StopRequest

log = logging.getLogger(__name__)

Streams = list[Tensor]
"""The states of one token stream or two, at every seam in turn."""


class Adapters:
    """Low-rank adapters, in float32, beside the linear layers of the blocks that stay."""

    def __init__(self, student: Denoiser, gone: tuple[str, ...], rank: int, seed: int) -> None:
        from peft import LoraConfig, get_peft_model  # optional

        layers = ((f"{block}.{name}", layer) for block, module in student.named.items() if block not in gone
                  for name, layer in module.named_modules())  # fmt: skip
        names = [name for name, layer in layers if isinstance(layer, nn.Linear) and not is_copy(student, name)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "adapters"))
            self.adapted = get_peft_model(student.network, LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
        self.student, self.precision = student, nullcontext()

    @contextmanager
    def teacher(self) -> Iterator[Denoiser]:
        with self.adapted.disable_adapter():
            yield self.student

    def end(self) -> None:
        self.adapted.merge_and_unload()


class AllWeights:
    """All weights but those of the blocks that go, in float32; passes are in bfloat16 where the device is to.

    They are trained in a copy, and the network itself is the teacher. Of several processes, each holds a part of every
    weight that is trained. FSDP2 brings the weights of one block at a time together.
    """

    def __init__(self, whole: Denoiser, gone: tuple[str, ...], compute: Compute) -> None:
        network, self.whole = whole.network.requires_grad_(False), whole
        frozen = {id(whole.named[name]): whole.named[name] for name in gone}  # teacher and student share these
        self.student = Denoiser(deepcopy(network, frozen), whole.units)
        half = network.dtype != torch.float32 or compute.bfloat16_on(network.device.type)
        self.precision = torch.autocast(network.device.type, torch.bfloat16, enabled=half)
        for name, parameter in self.student.network.named_parameters():
            goes = name.startswith(tuple(f"{block}." for block in gone))
            parameter.requires_grad_(not goes and not is_copy(whole, name))
        stay = [block for name, block in self.student.named.items() if name not in gone]
        split = splitter(network.device) if parallel.count() > 1 else None
        for part in (*stay, self.student.network):  # of several processes none ever has all weights in float32
            for parameter in part.parameters():
                parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
            if split is not None:
                split(part)

    @contextmanager
    def teacher(self) -> Iterator[Denoiser]:
        yield self.whole

    def end(self) -> None:
        before = dict(self.whole.network.named_parameters())
        for name, parameter in self.student.network.named_parameters():
            if parameter.requires_grad:
                before[name].data.copy_(together(parameter.data))


def splitter(device: torch.device) -> Callable[[nn.Module], None]:
    """The function that splits a module over all processes: each keeps its rows of the weights that are trained.

    It leaves alone the parts of the module that are split already, and the weights that are not trained.
    """
    from torch.distributed.device_mesh import init_device_mesh  # these imports take seconds
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (parallel.count(),))

    def split(part: nn.Module) -> None:
        frozen = {parameter for parameter in part.parameters() if not parameter.requires_grad}
        fully_shard(part, mesh=mesh, ignored_params=frozen)

    return split


def together(tensor: Any) -> Tensor:
    """The whole of a tensor, of which each process may hold its rows. All processes must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # a DTensor, whose import takes seconds


def placed(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor where ``like`` is: on its device, or this process's rows of it."""
    if not hasattr(like, "full_tensor"):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def is_copy(student: Denoiser, name: str) -> bool:
    """Whether a layer or weight is one that every block has a copy of, which must stay equal."""
    return COPIES.get(type(student.network).__name__, "\0") in name


@dataclass
class Distillation:
    """A student whose adapters or weights are trained, and the blocks that it passes over."""

    trained: Adapters | AllWeights
    gone: tuple[str, ...]

    def taught(self, call: Call) -> tuple[Tensor, Streams]:
        """The output and the states at the seams of the whole network."""
        with torch.no_grad(), self.trained.teacher() as teacher:
            output, visits = teacher.watched(call)
        slots, student = handed_on(visits), self.trained.student
        self.passing = {student.named[v.name]: student.passing(v, slots) for v in visits if v.name in self.gone}
        behind = [v for before, v in pairwise(visits)
                  if before.name in self.gone and v.name not in self.gone]  # fmt: skip
        self.seams = {v.name: list(slots_of(v, slots).values()) for v in behind}
        return output, [v.given[name] for v in behind for name in self.seams[v.name]]

    def loss(self, call: Call, settings: Recovery, prediction: Callable[[Tensor], Tensor], weight: float) -> float:
        """The loss of a call, whose gradients, times ``weight``, are added to the parameters'.

        The backward pass is made while blocks are passed over: checkpointed blocks run in it again.
        """
        target, wanted = self.taught(call)
        states: Streams = []
        watched = {self.trained.student.named[name]: self.watching(name, states) for name in self.seams}
        with forwards(self.passing | watched):
            with self.trained.precision:
                output = self.trained.student(call)
            apart, scale = prediction(output).float() - prediction(target).float(), prediction(target).float()
            loss = settings.output * apart.square().mean() / scale.square().mean().clamp(min=1e-12)
            for state, teacher in zip(states, wanted, strict=True):
                distance = F.normalize(state.float(), dim=-1) - F.normalize(teacher.float(), dim=-1)
                loss = loss + settings.seams * distance.square().sum(-1).mean() / len(wanted)
            torch.autograd.backward(weight * loss)
        return float(loss.detach())

    def watching(self, name: str, states: Streams) -> Callable[..., Any]:
        block, wanted = self.trained.student.named[name], len(self.seams[name])
        forward = block.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            given = arguments(block, args, kwargs)
            if len(states) < sum(map(len, self.seams.values())):  # not again in the backward pass
                states.extend(given[stream] for stream in self.seams[name][:wanted])
            return forward(*args, **kwargs)

        return run


def recover(
    subject: Denoiser,
    drop: Sequence[int],
    calls: Sequence[Captured],
    prediction: Callable[[Tensor], Tensor],
    settings: OwnPipeline,
    state: Path,
) -> list[float]:
    """Train the network without some blocks. Returns the loss of every step.

    Several processes share the calls of a step. All of them must give the same arguments.
    ``state`` is the file from which a stopped training goes on, or from which one that has ended is there again. The
    number of processes may be another one then. Raises Stopped if a process was asked to stop.
    """
    how, seed, network = settings.recovery, settings.seed, subject.network
    gone = tuple(name for block in drop for name in subject.units[block])
    if how.method == "lora":
        trained: Adapters | AllWeights = Adapters(subject, gone, how.rank, seed)
    else:
        trained = AllWeights(subject, gone, settings.compute)
    student = trained.student.network
    parameters = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), weight_decay=0.0)
    losses = resumed(state, parameters, optimizer)
    if settings.compute.gradient_checkpointing and student._supports_gradient_checkpointing:
        student.enable_gradient_checkpointing()
    distillation = Distillation(trained, gone)
    with StopRequest() as stop, Progress(len(losses), how.steps, how.batch_size) as progress:
        for step in range(len(losses), how.steps):
            for group in optimizer.param_groups:
                group["lr"] = how.highest_rate * rate(step, how)
            chosen = torch.randint(len(calls), (how.batch_size,), generator=generator(seed, "recovery", step))
            own = parallel.mine(chosen.tolist())
            found = torch.zeros((), dtype=torch.float64)
            for i in own:
                call = calls[i].call.to(network.device)
                found += distillation.loss(call, how, prediction, 1 / len(own)) / len(own)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(parallel.mean(found).item())
            progress.set_postfix_str(f", loss {losses[-1]:.4g}")
            progress.update()
            stopping = parallel.anywhere(stop.made)
            if stopping or (step + 1) % how.checkpoint_every == 0 or step + 1 == how.steps:
                save(state, parameters, optimizer, losses)
            if stopping:
                raise Stopped(f"stopped after step {step + 1} of {how.steps}; the same command goes on")
    trained.end()
    network.requires_grad_(True).disable_gradient_checkpointing()
    return losses


def rate(step: int, settings: Recovery) -> float:
    """The share of the learning rate: a linear rise, and then half a cosine."""
    warm = max(1, round(settings.warmup * settings.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def save(file: Path, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    """Write weights and moments. Of several processes, the first writes the file, and the others give their rows."""
    kept = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for name, parameter in trained.items():
        state = {name: parameter.detach()} | {f"{name}/{k}": value for k, value in optimizer.state[parameter].items()}
        whole = {key: together(value).cpu() for key, value in state.items()}
        kept |= whole if parallel.is_first() else {}
    if parallel.is_first():
        with whole_file(file) as partial:
            save_file({name: value.contiguous() for name, value in kept.items()}, partial)
    parallel.wait()


@torch.no_grad()
def resumed(file: Path, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> list[float]:
    """The losses until now, after weights and moments are those of the file, if there is one."""
    if not file.exists():
        return []
    kept = load_file(file)
    for name, parameter in trained.items():
        parameter.copy_(placed(kept[name], parameter))
        optimizer.state[parameter] = {"step": kept[f"{name}/step"]}
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][moment] = placed(kept[f"{name}/{moment}"], parameter)
    losses: list[float] = kept["losses"].tolist()
    log.info("going on after step %d", len(losses))
    return losses
