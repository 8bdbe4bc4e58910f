"""The criteria that score blocks: their names, and what each declares of itself.

A criterion is a file of the folder ``entpruner/scores/criteria``, and its name is the file's. What must be known of a
criterion before it runs are constants in that file. They are read here from its text: to import it would load torch,
which takes seconds.
"""

import ast
from pathlib import Path
from typing import Literal

from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.params.scoring import Scoring

FOLDER = Path(__file__).parents[1] / "scores/criteria"

Cost = float | Literal["gradients", "removals", "masks", "samples", "training"]
"""What one ranking of L blocks costs:

    a number     so many forward passes of the network for every draw
    gradients    a forward and a backward pass for every draw
    removals     for every draw, the output without each block in turn: about L/2 passes
    masks        ``scoring.masks`` passes of the pruned network for every draw
    samples      ``scoring.ld_pruner_samples`` sampled images of the network, and of it without each block in turn
    training     the steps of ``scoring.learned``
"""


class Declared(Frozen):
    """What a criterion's file declares. The names of its constants are these in capital letters."""

    cost: Cost | dict[str, Cost]
    """A mapping is for a criterion that has several forms, one of which the key of its name in ``scoring`` chooses."""
    sized: bool = False
    """Whether the criterion chooses a set of a given size. Its order of the blocks is of use for that size only."""
    needs_images: bool = False
    """Whether the criterion needs images without noise, or a process. It then scores no transformer of diffusers."""
    in_parts: bool = False
    """Whether the criterion runs the network part by part. It then scores no backbone of diffusers."""
    transformers_only: bool = False
    """Whether the criterion cannot score a U-Net."""


def declared(file: Path) -> Declared:
    """What a criterion's file declares. Raises UserError if that is not what ``Declared`` asks for, as literals."""
    given: dict[str, ast.expr] = {}
    for statement in ast.parse(file.read_bytes()).body:
        match statement:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                given[name] = value
    fields = {name: given[name.upper()] for name in Declared.model_fields if name.upper() in given}
    try:
        return Declared(**{name: ast.literal_eval(value) for name, value in fields.items()})
    except ValueError:  # pydantic's ValidationError is one
        said = ", ".join(f"{name.upper()} = {ast.unparse(value)}" for name, value in fields.items()) or "no COST"
        allowed = "COST as entpruner/params/criteria.py describes it; SIZED and TRANSFORMERS_ONLY, where they are true"
        raise UserError(f"{file}: got {said}; allowed: {allowed}") from None


CRITERIA = {file.stem: declared(file) for file in sorted(FOLDER.glob("[a-z]*.py"))}


def module_of(criterion: str) -> str:
    """The module of a criterion, which is imported when it is asked for."""
    return f"entpruner.scores.criteria.{criterion}"


def cost_of(criterion: str, scoring: Scoring) -> Cost:
    """The declared cost of a criterion, in the form that the settings choose."""
    cost = CRITERIA[criterion].cost
    return cost[getattr(scoring, criterion)] if isinstance(cost, dict) else cost
