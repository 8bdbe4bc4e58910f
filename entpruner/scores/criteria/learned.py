"""Learned masks: the choice of blocks is trained, together with small weight updates that foretell the recovery.

Consecutive blocks form groups, and each group has a categorical distribution over all the masks that remove its share.
Every image draws one mask for each group (Gumbel-softmax, straight through), and its tokens go through

    x ← x + m_i (block_i(x) - x)     m_i = 1: the block stays, 0: it is skipped

The training loss moves the logits of the distributions and LoRA on the blocks' linear layers. In the end the likeliest
masks decide, and the LoRA weights are thrown away.

Source: TinyFusion (Fang et al. 2025), with its scale of the logits and a temperature that falls linearly; Jang et al.
2017 for Gumbel-softmax. Ours: logits start at 0 and their last values decide (theirs start at random and are averaged),
gradients are not clipped, LoRA is on the blocks alone, labels are never dropped, and t is stratified over a batch.
Where the groups cannot share the removal evenly, each of the first ones loses one block more.
"""

import copy
import math
from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.models.lora import add_lora
from entpruner.models.network import PartedNetwork
from entpruner.process.guidance import Network
from entpruner.scores.context import Importance, ScoreContext, removal, require_finite
from entpruner.system.randomness import generator

COST = "training"
SIZED = True
NEEDS_IMAGES = True
IN_PARTS = True
TRANSFORMERS_ONLY = True  # masks mix the tokens that enter a block with those that leave it

MOST_MASKS = 100_000  # that a group may have: each is a logit, and a column of every batch


def score(context: ScoreContext) -> Importance:
    """0 for the blocks that the likeliest masks remove, 1 for the others.

    Raises UserError for groups that do not divide the blocks or have more than MOST_MASKS masks.
    """
    groups = [torch.tensor(masks, device=context.device) for masks in group_masks(context)]
    logits = trained_logits(context, groups)
    likeliest = torch.cat([masks[logit.argmax()] for masks, logit in zip(groups, logits, strict=True)])  # (L,)
    positions = (likeliest == 0).nonzero().flatten().tolist()
    settings = context.settings.learned
    return removal(context, positions, draws=settings.steps * settings.batch_size)


def group_masks(context: ScoreContext) -> Iterator[list[list[float]]]:
    """All masks of each group: K lists of a 1 for every block that stays, and a 0 for every block that goes."""
    remove, groups, blocks = context.set_size, context.settings.learned.groups, len(context.model.blocks)
    if blocks % groups:
        raise UserError(f"learned: scoring.learned.groups {groups} does not divide the network's {blocks} blocks")
    size = blocks // groups
    for group in range(groups):
        share = remove // groups + (group < remove % groups)
        if (count := math.comb(size, share)) > MOST_MASKS:
            raise UserError(
                f"learned: a group of {size} blocks that loses {share} has {count} masks, at most {MOST_MASKS} can be "
                f"learned; set scoring.learned.groups above {groups}"
            )
        yield [[float(block not in gone) for block in range(size)] for gone in combinations(range(size), share)]


def trained_logits(context: ScoreContext, groups: list[Tensor]) -> list[Tensor]:
    """The logits (K,) of each group's masks (K, size), trained on a copy of the network."""
    settings, images, process, device = context.settings.learned, context.images, context.process, context.device
    model = copy.deepcopy(context.model).requires_grad_(False)
    assert isinstance(model, PartedNetwork)  # because of IN_PARTS
    lora = add_lora(model.blocks, settings.lora, generator(context.seed, context.artefact, "learned", "lora"))
    logits = [torch.zeros(len(masks), device=device, requires_grad=True) for masks in groups]
    optimizer = torch.optim.AdamW(
        [{"params": logits, "lr": settings.mask_learning_rate}, {"params": lora, "lr": settings.learning_rate}],
        weight_decay=0.0,
    )
    temperatures = torch.linspace(*settings.temperature, settings.steps).tolist()
    for step, temperature in enumerate(temperatures):
        random = generator(context.seed, context.artefact, "learned", step)
        x, y = images.batch(torch.randint(len(images), (settings.batch_size,), generator=random), random)
        t = process.draw_times(len(x), random, stratified=True)
        noise = torch.randn(x.shape, generator=random)
        x, noise, t, y = (part.to(device) for part in (x, noise, t, y))
        gumbel = [-torch.empty(len(x), len(masks)).exponential_(generator=random).log() for masks in groups]
        with torch.enable_grad():
            drawn = [
                draw_masks(settings.scale * logit, masks, g.to(device), temperature)
                for logit, masks, g in zip(logits, groups, gumbel, strict=True)
            ]
            network = masked(model, torch.cat(drawn, dim=1))
            loss = process.losses(network, x, noise, t, y)["loss"].mean()
            torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    require_finite(torch.cat(logits))  # a loss that was not finite has spoilt them
    return logits


def draw_masks(logits: Tensor, masks: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """One of K masks for each sample: logits (K,), masks (K, size), Gumbel noise (B, K) -> (B, size) of 0 and 1.

    The gradient goes straight through the choice: it is that of the softmax at this temperature.
    """
    soft = ((logits + gumbel) / temperature).softmax(1)
    hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0)
    return (hard + (soft - soft.detach())) @ masks


def masked(model: PartedNetwork, mask: Tensor) -> Network:
    """The network in which each sample skips the blocks for which its row of ``mask`` (B, L) has a 0."""

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens, c = model.embed(x, t, y)
        for block, m in zip(model.blocks, mask.unbind(1), strict=True):
            tokens = tokens + m.view(-1, 1, 1) * (block(tokens, c) - tokens)  # (B, T, D)
        return model.head(tokens, c)

    return network
