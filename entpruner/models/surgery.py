"""Taking blocks out of a network, and giving it other classes. Blocks are named in the unpruned network's numbering."""

from collections.abc import Collection, Sequence
from typing import TypeVar

import torch

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork

AnyNetwork = TypeVar("AnyNetwork", bound=BlockNetwork)

LABEL_TABLE = "y_embedder.embedding_table.weight"


def kept_positions(kept: Sequence[int], drop: Collection[int]) -> tuple[int, ...]:
    """Where in ``kept``, a network's blocks, those stand that stay once ``drop`` are gone.

    Raises UserError if a block to drop is not there, or if none would stay.
    """
    unknown = sorted(set(drop) - set(kept))
    if unknown:
        raise UserError(f"cannot drop block {_list(unknown)}: the network has {_list(kept)}; drop some of these")
    positions = tuple(position for position, block in enumerate(kept) if block not in drop)
    if not positions:
        raise UserError(f"cannot drop all of the network's blocks {_list(kept)}; keep at least one")
    return positions


def renumbered_parameters(model: BlockNetwork, drop: Collection[int]) -> dict[str, str]:
    """Each parameter of the network without ``drop`` -> the same parameter's name in ``model``.

    What belongs to a parameter (its weight average, its optimizer moments) moves along by these names.
    Raises UserError as kept_positions does.
    """
    names = {name: name for name, _ in model.named_parameters() if not name.startswith("blocks.")}
    for new, old in enumerate(kept_positions(model.kept_blocks, drop)):
        for name, _ in model.blocks[old].named_parameters():
            names[f"blocks.{new}.{name}"] = f"blocks.{old}.{name}"
    return names


def drop_blocks(model: AnyNetwork, drop: Collection[int]) -> AnyNetwork:
    """A new network without the blocks ``drop``, every other weight copied; it computes what skipping them computes.

    Raises UserError if a block to drop is not there, or if none would stay.
    """
    kept = tuple(model.kept_blocks[position] for position in kept_positions(model.kept_blocks, drop))
    weights = model.state_dict()
    pruned = type(model)(model.architecture, kept).to(next(model.parameters()))
    pruned.load_state_dict({new: weights[old] for new, old in renumbered_parameters(model, drop).items()})
    return pruned


def first_label_rows(model: AnyNetwork, num_classes: int) -> AnyNetwork:
    """A new network for other classes that take the first rows of the label table; "no class" keeps its row.

    It computes what the old network does for the old classes 0, 1, ...: to keep the whole table would only add rows
    that nothing reads. Raises UserError if there are fewer rows than classes.
    """
    if num_classes > model.null_class:
        raise UserError(
            f"the label table has {model.null_class} classes, too few for {num_classes}; set label_table to new"
        )
    architecture = model.architecture.model_copy(update={"num_classes": num_classes})
    rows = model.state_dict()[LABEL_TABLE]
    moved = type(model)(architecture, model.kept_blocks).to(rows)
    moved.load_state_dict({**model.state_dict(), LABEL_TABLE: torch.cat([rows[:num_classes], rows[-1:]])})
    return moved


def replace_label_table(model: AnyNetwork, num_classes: int, generator: torch.Generator) -> AnyNetwork:
    """A new network for other classes: a fresh N(0, 0.02) label table, drawn on the CPU; the rest is copied."""
    architecture = model.architecture.model_copy(update={"num_classes": num_classes})
    like = next(model.parameters())
    moved = type(model)(architecture, model.kept_blocks).to(like.dtype)
    moved.initialize_labels(generator)
    moved.load_state_dict({**model.state_dict(), LABEL_TABLE: moved.y_embedder.embedding_table.weight.detach()})
    return moved.to(like.device)


def _list(blocks: Collection[int]) -> str:
    return ", ".join(map(str, blocks))
