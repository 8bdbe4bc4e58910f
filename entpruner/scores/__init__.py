"""Block-importance criteria: one file each, one signature, found by name."""

from collections.abc import Callable

from entpruner.errors import UserError
from entpruner.scores.ced import ced
from entpruner.scores.context import ScoreContext, Scores
from entpruner.scores.ld_pruner import ld_pruner
from entpruner.scores.random import random
from entpruner.scores.sensitivity import sensitivity

__all__ = ["CRITERIA", "ScoreContext", "Scores", "score"]

CRITERIA: dict[str, Callable[[ScoreContext], Scores]] = {
    "ced": ced,
    "ld_pruner": ld_pruner,
    "random": random,
    "sensitivity": sensitivity,
}


def score(criterion: str, context: ScoreContext) -> Scores:
    """Score every block of the context's network, which is put into evaluation mode.

    Raises UserError for a criterion that does not exist, and for a network whose outputs are not finite.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion: there is no {criterion!r}; choose one of {', '.join(CRITERIA)}")
    context.model.eval()
    return CRITERIA[criterion](context)
