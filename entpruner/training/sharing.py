"""How several processes train one network.

With ``compute.sharding: none`` every process holds the whole state, and DistributedDataParallel averages the gradients
of all processes while the backward pass still runs. With ``full`` every process holds some rows of every tensor, and
FSDP2 brings together the weights of one block at a time, for the passes through this block.

FSDP2 cuts a tensor along its first dimension as ``torch.chunk`` does, so some processes may hold no row of it. The
moving average and the optimizer's moments are cut in the same way. AdamW, SGD and the average treat each number by
itself, so they work on the rows of a process as on a whole tensor. Muon does not, and is refused.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from entpruner.params.compute import Compute
from entpruner.system import parallel
from entpruner.training.objective import Loss, Objective
from entpruner.training.state import TrainState


def is_split(compute: Compute) -> bool:
    """Whether each process holds a part of the training state. A single process always holds all of it."""
    return compute.sharding == "full" and parallel.count() > 1


def shared(
    state: TrainState, objective: Objective, compute: Compute, device: torch.device
) -> tuple[TrainState, nn.Module]:
    """The state that this process trains, on the device, and the loss that it minimises (``Loss``).

    A backward pass of the loss leaves the mean of the gradients of all processes in the weights. The state is ``state``
    itself, or the rows of it that this process holds. All processes must give the same ``state``.
    """
    if is_split(compute):
        return _split(state, objective, device)
    state.to(device)
    loss = Loss(state.model, objective)
    if parallel.count() == 1:
        return state, loss
    return state, DistributedDataParallel(loss, gradient_as_bucket_view=True)


def _split(state: TrainState, objective: Objective, device: torch.device) -> tuple[TrainState, nn.Module]:
    from torch.distributed.device_mesh import init_device_mesh  # these imports take seconds
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (parallel.count(),))
    model, ema = deepcopy(state.model), deepcopy(state.ema)
    for block in model.blocks:
        fully_shard(block, mesh=mesh)  # moves it to the device, too
    loss = Loss(model, objective)
    fully_shard(loss, mesh=mesh)  # what lies outside the blocks

    def held(tensor: Tensor) -> Tensor:
        return tensor[rows_of(len(tensor))].to(device, copy=True) if tensor.dim() else tensor.to(device, copy=True)

    for parameter in ema.parameters():
        parameter.data = held(parameter.data)
    moments = {name: {kind: held(tensor) for kind, tensor in kept.items()} for name, kept in state.moments.items()}
    return TrainState(model, ema, moments, state.step), loss


def rows_of(length: int, rank: int | None = None) -> slice:
    """The rows of a split tensor of this many rows that a process holds, by default this one."""
    rank = parallel.rank() if rank is None else rank
    size = -(-length // parallel.count())
    return slice(min(rank * size, length), min((rank + 1) * size, length))


def local(tensor: Tensor) -> Tensor:
    """The rows of a tensor of the state that this process holds, without a copy."""
    either: Any = tensor  # a DTensor if FSDP holds it, whose import takes seconds
    return either.to_local() if hasattr(either, "to_local") else tensor


def settle(loss: nn.Module, backward: Callable[[], object]) -> None:
    """Let DistributedDataParallel choose its buckets, by a backward pass whose gradients are not used.

    It sums the gradients in buckets, which it chooses anew after the first backward pass. The order in which three or
    more processes sum a gradient depends on its place in a bucket. So without this pass, the first step after a kill
    would round differently from the same step of a run that was not killed.
    """
    if isinstance(loss, DistributedDataParallel):
        backward()
        loss.zero_grad()


def accumulating(loss: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Within the block, a piece of a batch is computed. The gradients are averaged after the ``last`` piece alone.

    FSDP averages them after each piece, because otherwise each process would hold the whole gradient.
    """
    return nullcontext() if last or not isinstance(loss, DistributedDataParallel) else loss.no_sync()


def collect_gradients(parameters: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Move the gradient of each parameter to the tensor of the rows that this process holds, and return them all."""
    for parameter, weight in zip(parameters, weights, strict=True):
        if weight is not parameter and parameter.grad is not None:
            weight.grad, parameter.grad = local(parameter.grad), None
    return [weight.grad for weight in weights if weight.grad is not None]


def total_norm(tensors: Sequence[Tensor], split: bool) -> Tensor:
    """The norm () of all tensors together. If they are ``split``, it is that of all rows in all processes."""
    norm = get_total_norm(tensors)
    if not split:
        return norm
    squared = norm**2
    parallel.add_up([squared])
    return squared.sqrt()


@torch.no_grad()
def bring_together(part: TrainState, state: TrainState) -> None:
    """Copy the rows that all processes hold into the whole ``state`` of the first process.

    In the other processes the tensors of ``state`` stay as they are.
    """
    state.step, state.model.compiled = part.step, part.model.compiled
    whole = state.all_tensors()
    for name, tensor in part.all_tensors().items():
        if not tensor.dim():
            whole[name].copy_(tensor)
            continue
        length = len(whole[name])
        sizes = [len(range(length)[rows_of(length, rank)]) for rank in range(parallel.count())]
        if parts := parallel.gathered([local(tensor)], sizes):
            whole[name].copy_(torch.cat(parts))
