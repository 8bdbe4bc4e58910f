"""Every training: from nothing, of an adapted network, of an arm."""

from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from entpruner.params.base import Frozen, Positive

LabelTable = Literal["new", "first_rows"]
"""What a network that moves to other classes begins with; see Study."""


class Training(Frozen):
    """AdamW on the process's own loss. Budgets are in optimizer steps."""

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    """AdamW's decay rates, as DiT and SiT have them."""

    steps: int = Field(ge=0)
    """Optimizer steps of the whole run, all stages and the recovery together."""
    batch_size: Positive = 64
    """Images of a step, over all processes."""
    learning_rate: float = Field(1e-4, gt=0)
    """AdamW's learning rate after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0; at most all of them."""
    decay: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; cosine ends at 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global gradient norm."""
    label_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of labels replaced by the null class, which guidance needs."""
    horizontal_flip: bool = False
    """Mirror each image with probability 1/2."""
    ema_half_life: Positive | None = None
    """Half-life of the weight average, in optimizer steps; without it a tenth of ``steps``. Arms with as many steps,
    pruned or not, average over as many."""
    ema_share: float | None = Field(None, gt=0, le=1)
    """Half-life as a share of each stretch of training instead: a stage, a recovery, or a run without stages, which
    then averages over more steps than a pruned one."""
    log_every: Positive = 20
    """Steps between two points of the training curve."""
    checkpoint_every: Positive = 100
    """Steps between two checkpoints, which a killed run goes on from."""

    @field_validator("warmup_steps")
    @classmethod
    def _warm_in_time(cls, warmup_steps: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if steps is not None and warmup_steps > steps:
            raise ValueError(f"at most steps, which is {steps}")
        return warmup_steps

    @field_validator("ema_share")
    @classmethod
    def _one_half_life(cls, share: float | None, info: ValidationInfo) -> float | None:
        if share is not None and info.data.get("ema_half_life") is not None:
            raise ValueError("ema_half_life or ema_share, only one of them")
        return share

    def half_life(self, stretch: int) -> float:
        """The half-life of the weight average in a stretch of so many steps of the run, in steps."""
        if self.ema_share is not None:
            return self.ema_share * max(stretch, 1)
        return self.ema_half_life or max(self.steps, 1) / 10


class Lora(Frozen):
    """Low-rank updates of every linear layer of the blocks (Hu et al. 2022); merged into the weights afterwards."""

    rank: Positive = 8
    """Rank of each update."""
    alpha: float = Field(8.0, gt=0)
    """The update is scaled by alpha / rank."""


class Distillation(Frozen):
    """Learning from the network before pruning, beside the data (TinyFusion's masked knowledge distillation)."""

    cut: ClassVar[float] = 2.0
    """Hidden states further than this many standard deviations from their mean (massive activations) do not count."""

    output: float = Field(0.9, ge=0, le=1)
    """Weight of the distance to the teacher's output; the data's own loss has the rest."""
    features: float = Field(0.01, ge=0)
    """Weight of the distance between the hidden states after each kept block and the teacher's after the same block."""


Method = Literal["full", "bitfit", "lora", "difffit", "adapters"]


class Finetuning(Training):
    """The training of an arm, pruned or not."""

    method: Method = "full"
    """Which weights are trained; all but full belong to arms that are not pruned."""
    lora: Lora = Lora()
    """The settings of ``method: lora``."""
    adapter_width: Positive = 8
    """Hidden width of the adapters (Houlsby et al. 2019) behind attention and MLP."""
    distillation: Distillation | None = None
    """Learn from the network before pruning, too; without it, from the data alone."""
