"""Block-importance criteria: one file each, one signature, found by name."""

from collections.abc import Callable
from contextlib import nullcontext

from entpruner.errors import UserError
from entpruner.models.unet import UNet
from entpruner.params.arms import TRANSFORMERS_ONLY
from entpruner.scores.block_influence import block_influence
from entpruner.scores.ced import ced
from entpruner.scores.context import ScoreContext, Scores
from entpruner.scores.diff_pruning import diff_pruning
from entpruner.scores.every_other import every_other
from entpruner.scores.first import first
from entpruner.scores.last import last
from entpruner.scores.ld_pruner import ld_pruner
from entpruner.scores.learned import learned
from entpruner.scores.magnitude import magnitude
from entpruner.scores.random import random
from entpruner.scores.random_median import random_median
from entpruner.scores.sensitivity import sensitivity
from entpruner.scores.similarity_mse import similarity_mse
from entpruner.scores.taylor import taylor
from entpruner.system.devices import without_tf32

__all__ = ["CRITERIA", "ScoreContext", "Scores", "score"]

CRITERIA: dict[str, Callable[[ScoreContext], Scores]] = {
    "ced": ced,
    "ld_pruner": ld_pruner,
    "sensitivity": sensitivity,
    "taylor": taylor,
    "diff_pruning": diff_pruning,
    "magnitude": magnitude,
    "block_influence": block_influence,
    "similarity_mse": similarity_mse,
    "learned": learned,
    "random": random,
    "random_median": random_median,
    "every_other": every_other,
    "first": first,
    "last": last,
}


def score(criterion: str, context: ScoreContext) -> Scores:
    """Score every block of the context's network, which is put into evaluation mode and otherwise left as it is.

    Measured in full float32; what a criterion samples or trains, as samplings and trainings are.

    Raises UserError for a criterion that does not exist, for one of ``params.arms.SIZED`` without a number of blocks to
    remove, for one of ``params.arms.TRANSFORMERS_ONLY`` on a U-Net, and for a network whose outputs are not finite.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion: there is no {criterion!r}; choose one of {', '.join(CRITERIA)}")
    if criterion in TRANSFORMERS_ONLY and isinstance(context.model, UNet):
        raise UserError(f"criterion: {criterion} knows transformers alone, not a U-Net")
    context.model.eval()
    samples = criterion == "ld_pruner" and context.settings.ld_pruner == "sampling"
    with nullcontext() if samples or criterion == "learned" else without_tf32():
        return CRITERIA[criterion](context)
