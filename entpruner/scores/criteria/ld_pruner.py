"""LD-Pruner's score: how far the removal of a block moves the mean and the spread of the latents.

    score_i = ‖ mean(Z without i) - mean(Z) ‖ + ‖ std(Z without i) - std(Z) ‖

Source: Castells et al. 2024, "LD-Pruner", which modifies one operator at a time, generates latents from fixed seeds
and adds the change in their mean to the change in their spread. Its exact norm is not public. Our reading: mean and std
are over the samples, element by element, the norms are Euclidean, and "modify" is the removal of a block. Two forms:

    sampling   Z is sampled from the same noise and labels, with the study's sampler and guidance (the published form)
    one_step   Z is the prediction on CED's draws: the same protocol as CED, so that only the formula differs
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from entpruner.models.surgery import drop_blocks
from entpruner.scores.context import Importance, ScoreContext, groups_of, groups_of_neighbours
from entpruner.scores.entropy import MomentSums, jackknife_stderr, moments, variance
from entpruner.system.randomness import generator

COST = {"sampling": "samples", "one_step": "removals"}
NEEDS_IMAGES = True


def score(context: ScoreContext) -> Importance:
    """LD-Pruner's score of every block. It has no sign."""
    settings = context.settings
    sampling = settings.ld_pruner == "sampling"
    n = settings.ld_pruner_samples if sampling else settings.draws
    sums = MomentSums(1 + len(context.model.blocks), strata=1, groups=groups_of(n))
    predicted = ((variant, batch.group, prediction) for variant, batch, prediction in context.removal_predictions())
    for variant, group, latents in sampled_latents(context) if sampling else predicted:
        sums.add(variant, torch.zeros_like(group), group, moments(latents, "diagonal"))
    stderr = jackknife_stderr(shift(sums.without_each_group[:, 0]))
    return Importance(shift(sums.total[:, 0]), stderr=stderr, draws=n)


def shift(moments: Tensor) -> Tensor:
    """‖Δ mean‖ + ‖Δ std‖ of every variant against the first, from moments: (1+L, ..., 3, K) -> (L, ...)."""
    count, total, _ = moments.unbind(-2)
    mean, std = total / count, variance(moments).clamp(min=0).sqrt()  # (1+L, ..., K)
    return (mean[1:] - mean[:1]).norm(dim=-1) + (std[1:] - std[:1]).norm(dim=-1)


def sampled_latents(context: ScoreContext) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(variant, groups of the jackknife (B,), latents (B, C, H, W)). Variant 0 is the whole network, i+1 lacks block i.

    All variants share the noise, the labels and the sampler's own noise.
    """
    model, settings = context.model, context.settings
    a = model.architecture
    random = generator(context.seed, context.artefact, 0)
    n = settings.ld_pruner_samples
    noise = torch.randn(n, a.in_channels, a.input_size, a.input_size, generator=random)
    y = torch.arange(n) % a.num_classes
    group = groups_of_neighbours(y, groups_of(n))
    for variant in range(1 + len(model.blocks)):
        network = drop_blocks(model, model.kept_blocks[variant - 1 : variant]) if variant else model
        for step, index in enumerate(torch.split(torch.arange(n), settings.batch_size), start=1):
            latents = context.process.sample(
                network,
                noise[index].to(context.device),
                y[index].to(context.device),
                context.sampling,
                generator(context.seed, context.artefact, step),
            )
            yield variant, group[index].to(context.device), latents
