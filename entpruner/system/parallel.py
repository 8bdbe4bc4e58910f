"""Several processes with one result: torchrun starts one a GPU, each computes its share, and the first alone writes.

Each process draws the whole batch of a step, as a single one would, and takes its own rows. Gradients are summed behind
the backward pass by all-reduces of our own, not by DistributedDataParallel: that hangs on the ``forward`` of one
wrapped network, while objectives here call a network's parts (distillation reads hidden states), train some of its
weights and drop blocks between stages. What it would save is the overlap of a sum with the backward pass; in return
accumulation needs nothing special, a step has one sum, and every process ends it with the same bits.

In a single process all of this does nothing, and ``torch.distributed`` is never initialised.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

MEETING = "ENTPRUNER_MEETING"  # where the launcher has the processes of one node meet; else where torchrun says
LONGEST_WAIT = timedelta(hours=12)  # of all for one: the first may score alone for hours. A dead one is seen at once
PR_SET_PDEATHSIG = 1


class Parted(Exception):  # noqa: N818 (the error is the other's)
    """Another process has ended in the middle of it all; it says why itself."""


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return dist.is_torchelastic_launched()


def join(device: torch.device) -> None:
    """Meet the other processes, where there are any. Sums on a GPU are NCCL's; what lies on the CPU is gloo's."""
    if not started_by_torchrun() or dist.is_initialized():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whatever ends torchrun leaves nobody behind
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=os.environ.get(MEETING, "env://"),
        world_size=int(os.environ["WORLD_SIZE"]),
        rank=int(os.environ["RANK"]),
        timeout=LONGEST_WAIT,
    )
    if rank():
        logging.disable(logging.INFO)  # the first says it


def leave() -> None:
    """Part from the others, in whatever state they are."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 is the first, and the one there is without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that reads checkpoints, decides and writes."""
    return rank() == 0


# ------------------------------------------------------------------------------------------------------------ shares


def rows_of(batch_size: int, micro_batch: int | None) -> list[slice]:
    """The rows of a batch that this process computes, in pieces of at most ``micro_batch`` (None: in one piece).

    The batch must divide evenly.
    """
    share, rest = divmod(batch_size, count())
    assert not rest, f"a batch of {batch_size} for {count()} processes"
    first = rank() * share
    size = min(micro_batch or share, share)
    return [slice(start, min(start + size, first + share)) for start in range(first, first + share, size)]


def mine(parts: Sequence[int]) -> Sequence[int]:
    """Those of several independent parts that this process computes: every so many, from its own number on."""
    return parts[rank() :: count()]


# ------------------------------------------------------------------------------------------------ what they exchange


@contextmanager
def exchange() -> Iterator[None]:
    """Within the block processes need each other. Raises Parted if one is gone."""
    try:
        yield
    except RuntimeError as error:
        raise Parted from error


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in place; all get the same bits."""
    if count() > 1:
        with exchange():
            for waiting in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                waiting.wait()


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, without a gradient; in a single one the value itself."""
    if count() == 1:
        return value
    total = value.detach().to(torch.float64, copy=True)
    with exchange():
        dist.all_reduce(total)
    return (total / count()).to(value.dtype if value.is_floating_point() else torch.get_default_dtype())


def anywhere(flag: bool) -> bool:
    """Whether it is so in any of the processes."""
    found = torch.tensor(float(flag))
    add_up([found])
    return bool(found)


def copied_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with those of the first process."""
    if count() > 1:
        with exchange():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)


def said_by_first(content: Any) -> Any:
    """JSON content as the first process has it; what the others give does not matter."""
    if count() == 1:
        return content
    said = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
    size = torch.tensor(len(said))
    copied_from_first([size])
    if not is_first():
        said = torch.empty(int(size), dtype=torch.uint8)
    copied_from_first([said])
    return json.loads(said.numpy().tobytes())


def gathered(parts: Sequence[Tensor], total: int) -> list[Tensor]:
    """The ``total`` parts (n_i, D) that ``mine`` has spread, in order, in the first process; [] in the others."""
    if count() == 1:
        return list(parts)
    with exchange():
        if not is_first():
            for part in parts:
                dist.send(torch.tensor(part.shape), dst=0)
                dist.send(part.contiguous(), dst=0)
            return []
        own = iter(parts)
        sources = [part % count() for part in range(total)]
        return [_received(source, like=parts[0]) if source else next(own) for source in sources]


def _received(source: int, like: Tensor) -> Tensor:
    shape = torch.empty(like.dim(), dtype=torch.int64)
    dist.recv(shape, src=source)
    part = torch.empty(shape.tolist(), dtype=like.dtype)
    dist.recv(part, src=source)
    return part


def wait() -> None:
    """Until every process has come this far."""
    if count() > 1:
        with exchange():
            dist.barrier()
