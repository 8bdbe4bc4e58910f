"""Taking blocks out of a network, and giving it other classes. Blocks have their numbers in the unpruned network."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork

AnyNetwork = TypeVar("AnyNetwork", bound=BlockNetwork)

LABEL_TABLE = "y_embedder.embedding_table.weight"


def kept_positions(kept: Sequence[int], drop: Collection[int]) -> tuple[int, ...]:
    """The positions in ``kept``, the blocks of a network, of the blocks that stay without ``drop``.

    Raises UserError if the network does not have a block of ``drop``, or if no block would stay.
    """
    unknown = sorted(set(drop) - set(kept))
    if unknown:
        raise UserError(f"cannot drop block {_list(unknown)}: the network has {_list(kept)}; drop some of these")
    positions = tuple(position for position, block in enumerate(kept) if block not in drop)
    if not positions:
        raise UserError(f"cannot drop all of the network's blocks {_list(kept)}; keep at least one")
    return positions


def renumbered_parameters(model: BlockNetwork, drop: Collection[int]) -> dict[str, str]:
    """The name of each parameter of the network without ``drop``, and the name of the same parameter in ``model``.

    The moving averages and the optimizer's moments of the parameters are renamed with it, too.
    Raises UserError as kept_positions does.
    """
    names = {name: name for name, _ in model.named_parameters() if not name.startswith("blocks.")}
    for new, old in enumerate(kept_positions(model.kept_blocks, drop)):
        for name, _ in model.blocks[old].named_parameters():
            names[f"blocks.{new}.{name}"] = f"blocks.{old}.{name}"
    return names


def drop_blocks(model: AnyNetwork, drop: Collection[int]) -> AnyNetwork:
    """A new network without the blocks ``drop``. It computes what ``model`` computes when it skips them.

    Raises UserError as kept_positions does.
    """
    kept = tuple(model.kept_blocks[position] for position in kept_positions(model.kept_blocks, drop))
    weights = model.state_dict()
    named = {new: weights[old] for new, old in renumbered_parameters(model, drop).items()}
    return _rebuilt(model, model.architecture, kept, named)


def renumbered(model: AnyNetwork) -> AnyNetwork:
    """A copy of a transformer whose remaining blocks are all the blocks of its architecture: 0, 1, ..."""
    architecture = model.architecture.model_copy(update={"depth": len(model.blocks)})
    return _rebuilt(model, architecture, None, model.state_dict())


def first_label_rows(model: AnyNetwork, num_classes: int) -> AnyNetwork:
    """A new network for other classes, which take the first rows of the label table. "No class" keeps its row.

    For the classes 0, 1, ... it computes what ``model`` computes for them. The rows that no class needs are left out.
    Raises UserError if there are fewer rows than classes.
    """
    if num_classes > model.null_class:
        raise UserError(
            f"the label table has {model.null_class} classes, too few for {num_classes}; set label_table to new"
        )
    rows = model.state_dict()[LABEL_TABLE]
    return _with_label_table(model, torch.cat([rows[:num_classes], rows[-1:]]))


def replace_label_table(model: AnyNetwork, num_classes: int, generator: torch.Generator) -> AnyNetwork:
    """A new network for other classes, with a new label table from N(0, 0.02), drawn on the CPU."""
    rows = model.state_dict()[LABEL_TABLE]
    table = torch.empty(num_classes + 1, rows.shape[1], dtype=rows.dtype)
    return _with_label_table(model, table.normal_(std=0.02, generator=generator))


def _with_label_table(model: AnyNetwork, table: Tensor) -> AnyNetwork:
    architecture = model.architecture.model_copy(update={"num_classes": len(table) - 1})
    return _rebuilt(model, architecture, model.kept_blocks, {**model.state_dict(), LABEL_TABLE: table})


def _rebuilt(model: AnyNetwork, architecture: Any, kept: tuple[int, ...] | None, weights: dict[str, Any]) -> AnyNetwork:
    """A network like ``model``, of this architecture and these blocks, with copies of these weights."""
    made: Callable[..., AnyNetwork] = type(model)
    network = made(architecture, kept).to(next(model.parameters()))
    network.load_state_dict(weights)
    return network


def _list(blocks: Collection[int]) -> str:
    return ", ".join(map(str, blocks))
