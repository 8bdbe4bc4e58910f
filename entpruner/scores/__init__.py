"""Block importance: how much a network would lose by the removal of each block, by one of many criteria."""

from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module

import torch

from entpruner.errors import UserError
from entpruner.models.network import PartedNetwork
from entpruner.models.unet import UNet
from entpruner.params.criteria import CRITERIA, cost_of, module_of
from entpruner.scores.context import Context, Importance, NotFiniteError, ScoreContext, Scores, listed, require_finite
from entpruner.system.devices import without_tf32

__all__ = ["Context", "ScoreContext", "Scores", "score"]


def score(criterion: str, context: Context) -> Scores:
    """Score every block of the context's network, which is put into evaluation mode and otherwise left as it is.

    Computed in full float32, except that what a criterion samples or trains is computed as samplings and trainings are.

    Raises UserError for a criterion that does not exist; for one that chooses a set, if ``context.remove`` is no
    possible number of blocks; for one that does not know the network; and for a network whose outputs are not finite.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion: there is no {criterion!r}; choose one of {', '.join(CRITERIA)}")
    declared, model, remove = CRITERIA[criterion], context.model, context.remove
    if declared.transformers_only and isinstance(model, UNet):
        raise UserError(f"criterion: {criterion} knows transformers alone, not a U-Net")
    if declared.in_parts and not isinstance(model, PartedNetwork):
        raise UserError(f"criterion: {criterion} runs a network part by part, not one of diffusers")
    blocks = len(model.blocks)
    if declared.sized and (remove is None or not 0 < remove < blocks):
        raise UserError(f"{criterion} chooses a set: remove must be 1 to {blocks - 1} of {blocks} blocks, not {remove}")
    model.eval()
    module = import_module(module_of(criterion))
    as_usual = cost_of(criterion, context.settings) in ("samples", "training")
    try:
        with nullcontext() if as_usual else without_tf32():
            return scores_of(criterion, context, module.score(context))
    except NotFiniteError:
        message = f"{criterion}: the network's outputs are not finite numbers; check the weights it was given"
        raise UserError(message) from None


def scores_of(criterion: str, context: Context, found: Importance) -> Scores:
    """What is written of a criterion's findings. Raises NotFiniteError if a value is not finite."""
    require_finite(found.value if found.pooled is None else torch.cat([found.value, found.pooled]))
    stderr = torch.as_tensor(found.stderr).expand(len(found.value))
    whole = replace(found, signed=found.value if found.signed is None else found.signed, stderr=stderr)
    content = {name: listed(values) for name, values in vars(whole).items()}
    content |= {"criterion": criterion, "blocks": context.model.kept_blocks}
    return Scores(**content, seed=context.seed, settings=context.settings)
