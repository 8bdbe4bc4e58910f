"""Sensitivity: how much the training loss rises when a block is removed. It is CED's closest rival at equal cost.

Source: the baseline of that name in TinyFusion (Fang et al. 2024), "loss on removal". Ours: all blocks share the same
draws (x0, y, t, noise), t is stratified over the whole time axis, labels are never dropped, and there is no absolute
value, so that a block whose removal lowers the loss goes first.
"""

import torch

from entpruner.scores.context import Context, Importance, mean_by_stratum

COST = "removals"


def score(context: Context) -> Importance:
    """Mean rise of the process's training loss on removal of each block, pooled, by timestep bin and by class."""
    batches, bin_of, class_of = [], [], []
    for batch in context.draws():
        outputs = [output for _, output in context.model.removals(*batch.inputs)]
        batches.append(torch.stack([context.losses(batch, output) for output in outputs]))
        bin_of.append(context.bins(batch.t))
        class_of.append(batch.y)
    loss = torch.cat(batches, dim=1).double()  # (1+L, N)
    by_bin = mean_by_stratum(loss, torch.cat(bin_of), context.settings.bins)  # (1+L, bins)
    by_class = mean_by_stratum(loss, torch.cat(class_of), context.num_classes)
    rise = loss[1:] - loss[:1]  # (L, N)
    return Importance(
        value=rise.mean(1),
        stderr=rise.std(1) / rise.shape[1] ** 0.5,
        draws=rise.shape[1],
        pooled=rise.mean(1),
        per_timestep=by_bin[1:] - by_bin[:1],
        per_class=by_class[1:] - by_class[:1],
        unpruned={"pooled": loss[:1].mean(1), "timestep": by_bin[0], "class": by_class[0]},
    )
