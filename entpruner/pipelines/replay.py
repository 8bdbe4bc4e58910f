"""A transformer of diffusers without each of its blocks, at about half the price of a pass for each.

One pass is watched, and what leaves every block is kept. To see the output without a block, the network runs again:
earlier blocks hand on what they did, this block hands on what it is given, and the rest is computed. Embeddings and
head run each time. All of that is done in ``forward``, as the block itself has it, where hooks of offloading live too.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entpruner.models.network import Removable
from entpruner.pipelines.blocks import Unit, units


class Call(NamedTuple):
    """What a pipeline called its transformer with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def to(self, device: torch.device) -> "Call":
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self)


class Visit(NamedTuple):
    """What one block was given, and what it returned, in one pass of the network."""

    name: str
    given: dict[str, Any]  # arguments by the names of the block's parameters
    output: Any  # a tensor, or several


Slots = dict[int, str]
"""For the outputs of a block, by number, the argument that the next block takes each of them as."""


class Denoiser(Removable):
    """A transformer of diffusers as scoring and pruning see it. Its inputs are one ``Call``."""

    def __init__(self, network: Any, removable: Sequence[Unit] | None = None) -> None:
        """``removable`` is what may be removed, if it is known: otherwise it is found, for a class of diffusers."""
        super().__init__()
        self.network = network
        self.units = units(network) if removable is None else tuple(removable)
        self.kept_blocks = tuple(range(len(self.units)))
        modules = dict(network.named_modules())
        self.named = {name: modules[name] for unit in self.units for name in unit}
        self.blocks = nn.ModuleList(nn.ModuleList(modules[name] for name in unit) for unit in self.units)

    def forward(self, call: Call) -> Tensor:
        return first_tensor(self.network(*call.args, **call.kwargs))

    @torch.no_grad()
    def removals(self, call: Call) -> Iterator[tuple[int | None, Tensor]]:
        """Yield (None, output of the whole network), then (i, output without unit i) for every unit i."""
        output, visits = self.watched(call)
        yield None, output
        slots = handed_on(visits)
        for number in self.kept_blocks:
            yield number, self.replayed(call, visits, slots, self.units[number])

    @torch.no_grad()
    def without(self, call: Call, *numbers: int) -> Tensor:
        """The output without some units together."""
        _, visits = self.watched(call)
        gone = tuple(name for number in numbers for name in self.units[number])
        return self.replayed(call, visits, handed_on(visits), gone)

    @torch.no_grad()
    def visits(self, call: Call) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tokens that enter and those that leave each unit, (1, T, D) each, of all streams of all its blocks.

        One call is one draw, so that tokens of the samples of its batch are not told apart.
        """
        _, visits = self.watched(call)
        slots = handed_on(visits)
        by_name = {visit.name: visit for visit in visits}
        for unit in self.units:
            streams = [moved(by_name[name], slots) for name in unit]
            entering, leaving = zip(*(pair for pairs in streams for pair in pairs), strict=True)
            yield tokens(entering), tokens(leaving)

    def watched(self, call: Call) -> tuple[Tensor, list[Visit]]:
        """The output, and the visits in their order."""
        visits: list[Visit] = []

        def watching(name: str, block: nn.Module) -> Callable[..., Any]:
            forward = block.forward

            def run(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                visits.append(Visit(name, arguments(block, args, kwargs), output))
                return output

            return run

        with forwards({block: watching(name, block) for name, block in self.named.items()}):
            return self(call), visits

    def replayed(self, call: Call, visits: list[Visit], slots: dict[str, Slots], gone: Unit) -> Tensor:
        """The output without the blocks ``gone``."""
        order = [visit.name for visit in visits]
        first = min(order.index(name) for name in gone)
        if max(Counter(order).values()) > 1:
            first = 0  # a block that is visited twice has no one output that could be kept
        stand_ins = {self.named[name]: self.passing(visit, slots) for name, visit in zip(order, visits, strict=True)
                     if name in gone}  # fmt: skip
        stand_ins |= {self.named[visit.name]: repeating(visit.output) for visit in visits[:first]}
        with forwards(stand_ins):
            return self(call)

    def passing(self, visit: Visit, slots: dict[str, Slots]) -> Callable[..., Any]:
        """What a removed block does: its outputs are its inputs."""
        block, taken = self.named[visit.name], slots_of(visit, slots)

        def run(*args: Any, **kwargs: Any) -> Any:
            given = arguments(block, args, kwargs)
            if isinstance(visit.output, Tensor):
                return given[taken[0]]
            return tuple(given[taken[i]] if i in taken else output for i, output in enumerate(visit.output))

        return run


@contextmanager
def forwards(stand_ins: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Within the block, modules do something else. Hooks of offloading, which live in the same place, come back."""
    before = {module: vars(module).get("forward") for module in stand_ins}
    for module, forward in stand_ins.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, hooked in before.items():
            if hooked is None:
                del module.forward
            else:
                module.forward = hooked


def repeating(output: Any) -> Callable[..., Any]:
    return lambda *_, **__: output


@cache
def signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def arguments(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the block's parameters."""
    given = signature(type(block).forward).bind(block, *args, **kwargs).arguments
    return given | given.get("kwargs", {})


def outputs(visit: Visit) -> tuple[Any, ...]:
    return (visit.output,) if isinstance(visit.output, Tensor) else tuple(visit.output)


def handed_on(visits: list[Visit]) -> dict[str, Slots]:
    """For each list of blocks, which output of a block becomes which argument of the next.

    What left a block is the same object as an argument of the next one. Lists of which that is never seen are absent.
    """
    found: dict[str, Slots] = {}
    for visit, following in pairwise(visits):
        slots = found.setdefault(list_of(visit), {})
        if list_of(visit) == list_of(following):
            for number, output in enumerate(outputs(visit)):
                names = [name for name, value in following.given.items() if value is output and value is not None]
                slots |= {number: names[0]} if names else {}
    return {name: slots for name, slots in found.items() if slots}


def slots_of(visit: Visit, slots: dict[str, Slots]) -> Slots:
    """The slots of a visit's list; or, where states are rearranged between blocks or there is one block, by shape."""
    if list_of(visit) in slots:
        return slots[list_of(visit)]
    left = {name: value.shape for name, value in visit.given.items() if isinstance(value, Tensor)}
    found: Slots = {}
    for number, output in enumerate(outputs(visit)):
        fitting = [name for name, shape in left.items() if isinstance(output, Tensor) and shape == output.shape]
        if fitting:
            found[number] = fitting[0]
            del left[fitting[0]]
    return found


def list_of(visit: Visit) -> str:
    return visit.name.rpartition(".")[0]


def moved(visit: Visit, slots: dict[str, Slots]) -> list[tuple[Tensor, Tensor]]:
    """What enters and what leaves a block, for each of its streams."""
    left, taken = outputs(visit), slots_of(visit, slots)
    return [(visit.given[name], left[number]) for number, name in taken.items() if isinstance(left[number], Tensor)]


def tokens(streams: tuple[Tensor, ...]) -> Tensor:
    """The tokens of several streams in a row: (1, T, D). Streams of another width than the first are left out."""
    width = streams[0].shape[-1]
    return torch.cat([stream.reshape(1, -1, width) for stream in streams if stream.shape[-1] == width], dim=1)


def first_tensor(output: Any) -> Tensor:
    """The prediction in what a transformer returns. A list of samples becomes one row of values, (1, K)."""
    while isinstance(output, dict | tuple):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output if isinstance(output, Tensor) else torch.cat([sample.flatten() for sample in output])[None]
