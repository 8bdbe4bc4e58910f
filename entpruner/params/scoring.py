"""How blocks are scored."""

from typing import Literal

from pydantic import Field

from entpruner.params.base import Frozen, Positive
from entpruner.params.lora import Lora


class LearnedMask(Frozen):
    """TinyFusion's search: a mask a group of blocks, by Gumbel-softmax, with LoRA on the rest."""

    steps: Positive = 200
    """Optimizer steps of the search."""
    batch_size: Positive = 64
    """Images of a step."""
    groups: Positive = 2
    """Groups of consecutive blocks, each of which loses its share of the blocks."""
    mask_learning_rate: float = Field(3e-3, gt=0)
    """Learning rate of the logits, before they are scaled."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the LoRA weights, which are thrown away afterwards."""
    temperature: tuple[float, float] = (4.0, 0.1)
    """Temperature of the Gumbel-softmax, at the first and at the last step."""
    scale: float = Field(100.0, gt=0)
    """The logits are multiplied by this."""
    lora: Lora = Lora()
    """The LoRA on the rest of the network."""


class Scoring(Frozen):
    """How blocks are scored."""

    draws: Positive = 1024
    """Draws (x0, y, t, noise), t stratified; one fixed set for all blocks. The paper's number is unknown."""
    batch_size: Positive = 256
    """Draws that the network sees at once."""
    estimator: Literal["scalar", "diagonal", "low_rank", "knn"] = "scalar"
    """Gaussian with one variance for all elements (the paper's), one a coordinate, or a low-rank covariance; or no
    Gaussian: Kozachenko-Leonenko's nearest neighbours on random projections."""
    rank: Positive = 16
    """Directions with a variance of their own in ``low_rank``, the others share one; takes rank + 2 draws or more."""
    projections: Positive = 8
    """Random subspaces that ``knn`` averages over."""
    dimensions: Positive = 4
    """Dimension of each random subspace of ``knn``."""
    neighbours: Positive = 8
    """Which neighbour's distance ``knn`` takes, of neighbours + 1 draws or more: a nearer one scatters more, a farther
    one smooths more."""
    reduction: Literal["pooled", "timestep", "class"] = "pooled"
    """Entropy of all draws together, or the mean over timestep bins, or over classes."""
    bins: Positive = 8
    """Timestep bins that scores are kept for, and that ``reduction: timestep`` takes the mean over."""
    ld_pruner: Literal["sampling", "one_step"] = "sampling"
    """LD-Pruner's latents: fully sampled ones, or one-step predictions from the same draws."""
    ld_pruner_samples: Positive = 64
    """Latents sampled for each block, where LD-Pruner takes sampled ones."""
    block_influence: Literal["noised", "clean"] = "noised"
    """Hidden states of noised inputs over all timesteps, or TinyFusion's clean latents at its small timesteps."""
    trial: int = Field(0, ge=0)
    """Another draw of the criteria that draw lots: random and random_median."""
    masks: Positive = 100
    """Random masks of which random_median takes the one with the median calibration loss."""
    loss_threshold: float = Field(0.05, ge=0, lt=1)
    """diff_pruning leaves out timesteps whose loss is below this share of the largest."""
    learned: LearnedMask = LearnedMask()
    """The settings of the criterion ``learned``."""
