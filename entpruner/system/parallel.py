"""Several processes that make one result. torchrun starts one on each GPU, and the first process alone writes.

Each process draws the whole batch of a step, as a single process does, and computes its own rows. How the gradients of
all processes come together is the matter of ``training/sharing.py``.

In a single process these functions do nothing, and ``torch.distributed`` is never initialised.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from entpruner.system.stopping import end_with_parent

MEETING = "ENTPRUNER_MEETING"  # names the place where the processes of one node meet; without it torchrun does
LONGEST_WAIT = timedelta(hours=12)  # the first process may score alone for hours; a dead process is noticed at once


class Parted(Exception):  # noqa: N818 (this process made no error)
    """Another process has ended too early. That process tells the user why."""


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any. NCCL moves tensors on GPUs, and gloo moves those on the CPU."""
    if not started_by_torchrun() or dist.is_initialized():
        return
    end_with_parent()  # which is torchrun
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
        logging.disable(logging.INFO)  # the first process alone writes a log


def leave() -> None:
    """Close the connections to the other processes, whatever these are doing."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0. Without torchrun it is 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that reads checkpoints, decides and writes."""
    return rank() == 0


# ------------------------------------------------------------------------------------------------------------ shares


def rows_of(batch_size: int, micro_batch: int | None) -> list[slice]:
    """The rows of a batch that this process computes, in pieces of at most ``micro_batch`` rows (None: in one piece).

    ``batch_size`` must be a multiple of the number of processes.
    """
    share, rest = divmod(batch_size, count())
    assert not rest, f"a batch of {batch_size} for {count()} processes"
    first = rank() * share
    size = min(micro_batch or share, share)
    return [slice(start, min(start + size, first + share)) for start in range(first, first + share, size)]


def mine(parts: Sequence[int]) -> Sequence[int]:
    """The parts that this process computes: with n processes every n-th, beginning at its own number."""
    return parts[rank() :: count()]


# ------------------------------------------------------------------------------------------------ what they exchange


@contextmanager
def exchange() -> Iterator[None]:
    """Within the block this process waits for others. Raises Parted if one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "/gloo/" in str(error):  # an error of gloo names its source file
            raise Parted from error
        raise


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in place. All processes get the same bits."""
    if count() > 1:
        with exchange():
            for waiting in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                waiting.wait()


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, without a gradient. A single process gets ``value`` itself."""
    if count() == 1:
        return value
    total = value.detach().to(torch.float64, copy=True)
    add_up([total])
    return (total / count()).to(value.dtype if value.is_floating_point() else torch.get_default_dtype())


def anywhere(flag: bool) -> bool:
    """Whether ``flag`` is set in one of the processes or more."""
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
    """The JSON content that the first process gives. The content that the others give is not used."""
    if count() == 1:
        return content
    said = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
    size = torch.tensor(len(said))
    copied_from_first([size])
    if not is_first():
        said = torch.empty(int(size), dtype=torch.uint8)
    copied_from_first([said])
    return json.loads(said.numpy().tobytes())


def gathered(parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """All parts (n_i, D) in their order, of which each process gives those that ``mine`` gave it.

    ``sizes`` are the n_i of all parts. The first process gets the parts. The others get an empty list.
    """
    if count() == 1:
        return list(parts)
    with exchange():
        if not is_first():
            for part in parts:
                if part.numel():
                    dist.send(part.contiguous(), dst=0)
            return []
        found = [parts[0].new_empty(size, *parts[0].shape[1:]) for size in sizes]
        found[:: count()] = parts
        for index, part in enumerate(found):
            if (source := index % count()) and part.numel():
                dist.recv(part, src=source)
        return found


def wait() -> None:
    """Wait until every process has come to this call."""
    if count() > 1:
        with exchange():
            dist.barrier()
