"""Transformers of diffusers as they come: built from a configuration, called on a batch, and counted.

What a study needs of a class is tried on a network without memory for its weights, in about a second and before any
job. The class must call alike blocks one after the other, in one list, and each hands one state to the next. Then a
list that lacks a block, or that has a function in the place of a block, is all that it takes to skip the block or to
repeat what it did: no method of the class is replaced.

Shape letters: B batch, C channels of the data, H and W height and width, F frames, S words, D size of a word.
"""

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from entpruner.errors import UserError
from entpruner.params.stock import StockArchitecture

TEXT_SIZES = ("caption_channels", "text_dim", "joint_attention_dim", "cross_attention_dim")
"""The keys of a configuration that may say the size of a text token, the first that is there."""
TIMES = 1000
"""The scale of times in diffusers. The times of flow matching are from 0 to 1 here."""


def build(shape: StockArchitecture) -> nn.Module:
    """The network of a class and its configuration, with the weights that the class itself draws.

    Raises UserError, in one line, if diffusers is not installed, and for what it does not know or refuses.
    """
    if find_spec("diffusers") is None:
        raise UserError(f"{shape.transformer}: needs the package diffusers; run: pip install entpruner[diffusers]")
    import diffusers  # takes seconds, and only studies of such networks need it

    kind = getattr(diffusers, shape.transformer, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        known = [name for name in dir(diffusers) if name.endswith("Model") and "Transformer" in name]
        near = "".join(f"; did you mean {name}?" for name in get_close_matches(shape.transformer, known, n=1))
        raise UserError(f"{shape.transformer}: diffusers {diffusers.__version__} has no network of this name{near}")
    try:
        return kind(**shape.config)
    except Exception as error:  # whatever a class raises for a configuration
        raise refused(shape, f"refuses its config: {said(error)}") from None


def list_of(network: nn.Module, shape: StockArchitecture) -> str:
    """The name of the list that holds the blocks. Raises UserError if it is not one list of alike blocks."""
    lists = {name: child for name, child in network.named_children() if isinstance(child, nn.ModuleList)}
    found = [name for name, blocks in lists.items() if len(blocks) == shape.depth]
    if len(found) != 1:
        raise refused(shape, f"has {len(found)} lists of config.num_layers blocks; allowed: one")
    shapes = [{name: weight.shape for name, weight in block.state_dict().items()} for block in lists[found[0]]]
    if any(other != shapes[0] for other in shapes):
        raise refused(shape, "has blocks that differ in their weights; allowed: blocks that are alike")
    return found[0]


def text_size(shape: StockArchitecture) -> int:
    """The size D of the text tokens that the network takes. Raises UserError if its configuration does not say."""
    found = [shape.config[key] for key in TEXT_SIZES if key in shape.config]
    if not found:
        raise refused(shape, f"says no size of its text; give one of {', '.join(TEXT_SIZES)} in config")
    return int(found[0])


def called(network: nn.Module, shape: StockArchitecture, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """The output (B, 2C, H, W) for x (B, C, H, W), times t (B,) and text (B, S, D).

    A network for video sees the channels as frames: (B, C/F, F, H, W). Zeros stand for variances that it lacks.
    """
    if shape.frames is not None:
        x = x.view(len(x), -1, shape.frames, *x.shape[2:])
    given = {
        "hidden_states": x,
        "timestep": TIMES * t if t.is_floating_point() else t,
        "encoder_hidden_states": text,
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},  # which PixArt asks for
    }
    taken = inspect.signature(network.forward).parameters
    output = network(**{name: given[name] for name in taken if name in given}, return_dict=False)[0]
    output = output if shape.frames is None else output.flatten(1, 2)
    return output if output.shape[1] == 2 * shape.in_channels else torch.cat([output, torch.zeros_like(output)], dim=1)


# ------------------------------------------------------------------------------------------------------------- counted


class Part(NamedTuple):
    """What one image takes in a part of a network."""

    parameters: int
    macs: int
    """Multiply-accumulates of matrix products."""
    values: int
    """Numbers that its layers return."""

    def __sub__(self, other: "Part") -> "Part":
        return Part(*(mine - its for mine, its in zip(self, other, strict=True)))


class Counts(NamedTuple):
    """What one image takes in a network."""

    around: Part
    """All but the blocks."""
    block: Part
    """A block: they are alike."""
    state: int
    """Numbers that a block hands to the next."""
    text: int
    """The size of a word's vector."""


def counts(shape: StockArchitecture) -> Counts:
    """The counts of a network, which is tried for that. Raises UserError if the class does not do for a study."""
    return _counts(shape.model_dump_json())


@cache
def _counts(shape: str) -> Counts:
    whole = StockArchitecture.model_validate_json(shape)
    with torch.device("meta"):
        network = build(whole)
        name = list_of(network, whole)
        require_drawn_by_seed(network, whole)
        shapes = [whole.model_copy(update={"config": whole.config | {"num_layers": depth}}) for depth in (1, 2)]
        one, two = (tried(shape, name) for shape in shapes)
    block = two[0] - one[0]
    return Counts(one[0] - block, block, state=one[1], text=text_size(whole))


def require_drawn_by_seed(network: nn.Module, shape: StockArchitecture) -> None:
    """Raise UserError for dropout, which draws from no seed of ours, and for saved numbers that are no weights."""
    if any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network.modules()):
        raise refused(shape, "has dropout; allowed: none, as it draws random numbers that no seed decides")
    if extra := network.state_dict().keys() - dict(network.named_parameters()).keys():
        raise refused(shape, f"saves {sorted(extra)[0]}, which is no weight; allowed: weights alone")


def tried(shape: StockArchitecture, name: str) -> tuple[Part, int]:
    """What one image takes in a network without memory for its weights, and the numbers of a state.

    ``name`` is that of the list of blocks.

    Raises UserError if a pass fails, or if the blocks do more than to hand on one state.
    """
    network = build(shape)
    blocks, states, values = getattr(network, name), list[int](), list[int]()
    handles = [layer.register_forward_hook(counting(values)) for layer in network.modules() if not [*layer.children()]]

    def see(entering: Any, left: Any) -> None:
        if not isinstance(left, Tensor) or not isinstance(entering, Tensor) or left.shape != entering.shape:
            raise TypeError("its blocks hand on more than one state; allowed: classes whose blocks hand on one")
        states.append(left.numel())

    stand_in(network, name, [watching(block, see) for block in blocks])
    channels, side, words = shape.in_channels, shape.input_size, shape.words
    x, text = torch.zeros(1, channels, side, side), torch.zeros(1, words, text_size(shape))
    try:
        with FlopCounterMode(display=False) as flops:
            output = called(network, shape, x, torch.zeros(1, dtype=torch.int64), text)
        if output.shape != (1, 2 * channels, side, side):
            raise ValueError(f"its output is {(*output.shape[1:],)}, for data of {(channels, side, side)}")
        macs = flops.get_total_flops() // 2
        torch.autograd.backward(output.sum())
    except Exception as error:  # whatever a class raises for an input
        clips = f"clips of {shape.frames} frames" if shape.frames else "images; a network for video needs frames"
        raise refused(shape, f"cannot take the study's {clips}: {said(error)}") from None
    weights = {**dict(network.named_parameters()), **dict(blocks.named_parameters())}
    if idle := [name for name, weight in weights.items() if weight.grad is None]:
        raise refused(shape, f"has weights that its output does not depend on, as {idle[0]}")
    for handle in handles:
        handle.remove()
    return Part(sum(weight.numel() for weight in weights.values()), macs, sum(values)), states[0]


def counting(values: list[int]) -> Any:
    def count(_: nn.Module, __: Any, output: Any) -> None:
        values.append(output.numel() if isinstance(output, Tensor) else 0)

    return count


def watching(block: nn.Module, see: Callable[[Any, Any], object]) -> Callable[..., Any]:
    """A block that also shows what enters it, its first argument, and what leaves it."""

    def run(*args: Any, **kwargs: Any) -> Any:
        left = block(*args, **kwargs)
        see(args[0] if args else kwargs.get("hidden_states"), left)
        return left

    return run


def repeating(output: Tensor) -> Callable[..., Tensor]:
    """A function in the place of a block, that returns what the block did."""
    return lambda *_, **__: output


def stand_in(network: nn.Module, name: str, blocks: Sequence[Any]) -> None:
    """Let the network call these, modules or functions, as its list of blocks. The list holds no weights then."""
    if name in network._modules:
        delattr(network, name)
    setattr(network, name, [*blocks])


def refused(shape: StockArchitecture, why: str) -> UserError:
    return UserError(f"{shape.transformer}: {why}")


def said(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
