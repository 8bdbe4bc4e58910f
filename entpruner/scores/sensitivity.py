"""Sensitivity: how much the training loss rises when a block is removed. CED's closest rival at equal cost.

Source: the baseline of that name in TinyFusion (Fang et al. 2024), "loss on removal". Ours: the same draws (x0, y, t,
noise) for all blocks, t stratified over the whole time axis, labels never dropped, no absolute value: a block whose
removal lowers the loss goes first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from entpruner.scores.context import ScoreContext, Scores, draws, listed, ranking, timestep_bins
from entpruner.scores.prefix import removal_outputs


def sensitivity(context: ScoreContext) -> Scores:
    """Mean rise of the process's training loss on removal of each block, pooled, by timestep bin and by class."""
    model, process, bins = context.model, context.process, context.settings.bins
    losses, bin_of, class_of = [], [], []
    for batch in draws(context):
        outputs = [output for _, output in removal_outputs(model, batch.x_t, batch.t, batch.y)]
        losses.append(
            torch.stack(
                [
                    # The loss wants a network: here is one that already knows its answer.
                    process.losses(lambda *_, answer=output: answer, batch.x, batch.noise, batch.t, batch.y)["loss"]
                    for output in outputs
                ]
            )
        )
        bin_of.append(timestep_bins(context, batch.t))
        class_of.append(batch.y)
    loss = torch.cat(losses, dim=1).double()  # (1+L, N)
    by_bin = mean_by_stratum(loss, torch.cat(bin_of), bins)  # (1+L, bins)
    by_class = mean_by_stratum(loss, torch.cat(class_of), context.images.num_classes)
    rise = loss[1:] - loss[:1]  # (L, N)
    value = ranking("sensitivity", rise.mean(1))
    return Scores(
        criterion="sensitivity",
        blocks=model.kept_blocks,
        value=value,
        signed=value,
        stderr=listed(rise.std(1) / rise.shape[1] ** 0.5),
        pooled=value,
        per_timestep=listed(by_bin[1:] - by_bin[:1]),
        per_class=listed(by_class[1:] - by_class[:1]),
        unpruned={"pooled": listed(loss[:1].mean(1)), "timestep": listed(by_bin[0]), "class": listed(by_class[0])},
        draws=rise.shape[1],
        seed=context.seed,
        settings=context.settings,
    )


def mean_by_stratum(values: Tensor, stratum: Tensor, size: int) -> Tensor:
    """Means of (V, N) values over the members of each stratum, (N,) -> (V, size); NaN where there is none."""
    member = F.one_hot(stratum, size).to(values)  # (N, size)
    return values @ member / member.sum(0)
