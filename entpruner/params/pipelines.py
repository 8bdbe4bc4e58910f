"""What scoring and pruning do with a pipeline of diffusers."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from entpruner.params.base import Frozen, Positive, Seed
from entpruner.params.compute import Compute
from entpruner.params.scoring import Scoring


class Sampled(Frozen):
    """How the pipeline is run, whose transformer's inputs are what blocks are scored on. None is the pipeline's own."""

    steps: Positive = 20
    """Steps of each sampling."""
    kept: Positive = 4
    """Calls of the transformer that are kept of each sampling, spread over its times."""
    guidance: float | None = Field(None, ge=0)
    """Scale of guidance, as the pruned model will be used with."""
    height: Positive | None = None
    width: Positive | None = None
    frames: Positive | None = None
    """Frames of a video."""
    dtype: Literal["stored", "float32", "bfloat16", "float16"] = "stored"
    """Type of the transformer's weights; that of its file, if not said otherwise."""


class Recovery(Frozen):
    """Distillation: the network without blocks learns to do what the whole one does."""

    method: Literal["lora", "full"] = "lora"
    """Low-rank adapters, with one copy of the network in memory; or all weights, of a second copy."""
    steps: int = Field(500, ge=0)
    """Optimizer steps; 0 for none. Published work takes 100 to 100,000."""
    batch_size: Positive = 4
    """Captured calls whose gradients are added up for a step."""
    rank: Positive = 64
    """The rank of the adapters."""
    learning_rate: float | None = Field(None, gt=0)
    """The highest learning rate; None is 1e-4 for adapters and 1e-5 for all weights."""
    warmup: float = Field(0.02, ge=0, le=1)
    """Share of the steps over which the rate rises; then it falls as a cosine, to 0."""
    output: float = Field(1.0, ge=0)
    """Weight of the distance to the whole network's output."""
    seams: float = Field(1.0, ge=0)
    """Weight of the distance between the states that enter the block behind each gap, each token of length 1."""
    calls: Positive = 256
    """Calls that are captured to learn from, if there are steps; they are gone through several times."""
    checkpoint_every: Positive = 100
    """Steps between two checkpoints, which a killed run goes on from. Only the last one is kept."""

    @property
    def highest_rate(self) -> float:
        return self.learning_rate or {"lora": 1e-4, "full": 1e-5}[self.method]


class OwnPipeline(Frozen):
    """What ``entpruner score`` and ``prune`` do with a pipeline of diffusers."""

    seed: Seed = 0
    scoring: Scoring = Scoring(draws=64)
    """Each draw is a captured call. The errors of the scores say whether there are enough."""
    pipeline: Sampled = Sampled()
    recovery: Recovery = Recovery()
    compute: Compute = Compute()

    @field_validator("scoring")
    @classmethod
    def _without_images(cls, scoring: Scoring) -> Scoring:
        if scoring.estimator not in ("scalar", "diagonal"):
            raise ValueError("estimator scalar or diagonal: the others keep every prediction")
        if scoring.reduction == "class" or scoring.block_influence == "clean":
            raise ValueError(
                "reduction pooled or timestep and block_influence noised: prompts have no classes or images"
            )
        return scoring

    @model_validator(mode="after")
    def _processes(self) -> Self:
        count, how = self.compute.processes, self.recovery
        if count > 1 and (how.method != "full" or self.compute.sharding != "full"):
            raise ValueError("recovery.method full and compute.sharding full: several processes share this alone")
        if how.batch_size % count:
            raise ValueError(f"a recovery.batch_size that {count} processes can divide, not {how.batch_size}")
        return self
