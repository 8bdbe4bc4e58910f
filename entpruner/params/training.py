"""Every training: from nothing, of an adapted network, of an arm."""

from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from entpruner.params.arms import Criterion
from entpruner.params.base import Frozen, Positive, Ratio
from entpruner.params.lora import Lora

LabelTable = Literal["new", "first_rows"]
"""What a network that moves to other classes begins with; see Study."""


class Monitor(Frozen):
    """NTK and ZiCo, watched while a transformer is trained, on samples that stay the same. The sections ``proxies`` and
    ``pruning`` say how they are measured and on which weights."""

    every: Positive
    """Steps between two readings; there is also one at both ends of each stage."""


class ArmMonitor(Monitor):
    """The same for an arm. With a ranking each reading is a vote, too: how many blocks a stage would remove that may
    also remove none. Pruned arms have a ranking of their own."""

    criterion: Criterion | None = None
    """What ranks the blocks of an arm that is not pruned."""
    ratio: Ratio | None = None
    """The share of blocks that these votes are about."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.criterion is None) != (self.ratio is None):
            raise ValueError("criterion and ratio, or neither of them")
        return self


OptimizerName = Literal["adamw", "sgd", "muon"]


class Training(Frozen):
    """A training on the process's own loss. Budgets are in optimizer steps."""

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    """AdamW's decay rates, as DiT and SiT have them."""

    steps: int = Field(ge=0)
    """Optimizer steps of the whole run, all stages and the recovery together."""
    batch_size: Positive = 64
    """Images of a step, over all processes."""
    optimizer: OptimizerName = "adamw"
    """AdamW, SGD with momentum, or Muon, which moves the matrices of the blocks and leaves all else to AdamW."""
    momentum: float | None = Field(None, gt=0, lt=1, validate_default=True)
    """The momentum of ``sgd`` and of ``muon``, which need one."""
    learning_rate: float = Field(1e-4, gt=0)
    """The learning rate after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0; at most all of them."""
    decay: Literal["constant", "cosine", "restarts"] = "constant"
    """What the learning rate does after the warm-up: cosine ends at 0, restarts falls as a cosine again and again
    (Loshchilov and Hutter 2017)."""
    restart_every: Positive | None = Field(None, validate_default=True)
    """Steps from one restart to the next, for ``decay: restarts``."""
    weight_decay: float = Field(0.0, ge=0)
    """The weight decay: decoupled from the gradient, but not in SGD."""
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
    monitor: Monitor | None = None
    """Watch NTK and ZiCo of the network; without it nothing is watched."""

    @field_validator("momentum")
    @classmethod
    def _with_momentum(cls, momentum: float | None, info: ValidationInfo) -> float | None:
        optimizer = info.data.get("optimizer")
        if momentum is None and optimizer in ("sgd", "muon"):
            raise ValueError(f"a number above 0 and below 1, which optimizer {optimizer} needs")
        return momentum

    @field_validator("restart_every")
    @classmethod
    def _with_restarts(cls, restart_every: int | None, info: ValidationInfo) -> int | None:
        if restart_every is None and info.data.get("decay") == "restarts":
            raise ValueError("a whole number of steps, which decay restarts needs")
        return restart_every

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
    monitor: ArmMonitor | None = None
    """Watch NTK and ZiCo of the network, and hold votes; without it nothing is watched."""
    distillation: Distillation | None = None
    """Learn from the network before pruning, too; without it, from the data alone."""
