"""When and how much is pruned: stages, the grid of block counts, the vote."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from entpruner.params.base import Frozen, Positive, up_to

Weights = Literal["average", "trained"]
"""The weights of a training: their moving average, or those that the optimizer moves."""


def blocks_to_remove(depth: int, ratio: float) -> int:
    """How many of ``depth`` blocks a ratio stands for: the nearest whole number (30 % of 28 are 8)."""
    return round(ratio * depth)


def stage_boundaries(stages: int, fraction: float, steps: int) -> tuple[int, ...]:
    """Steps at which stages 1, 2, ... and the recovery begin, then the last step: ``stages`` + 2 numbers.

    The stages share the first ``fraction`` of the steps evenly; with no stage, all is recovery.
    """
    pruned = round(fraction * steps) if stages else 0
    return (*(round(pruned * stage / stages) for stage in range(stages)), pruned, steps)


def removal_grid(total: int, stages: int, at: int | None = None) -> tuple[int, ...]:
    """Blocks removed after 0, 1, ..., k stages, ``total`` of them at the end: k + 1 numbers.

    Every stage removes as many as the others, but for rounding. If ``at`` is given, that stage removes all.
    """
    if at is not None:
        return tuple(0 if stage < at else total for stage in range(stages + 1))
    return tuple(round(stage * total / stages) for stage in range(stages + 1))


def candidate_counts(grid: Sequence[int], removed: int, stage: int, lookahead: int) -> tuple[int, ...]:
    """Block counts that stage 1 ... k may choose from: stay, and up to ``lookahead`` steps on; at last the target."""
    if stage == len(grid) - 1:
        return (grid[-1],)
    return tuple(count for count in grid if count >= removed)[: lookahead + 1]


class VoteWeights(Frozen):
    """Weight of each proxy's rank in the vote. The paper weighs both alike."""

    ntk: float = Field(1.0, ge=0)
    """Weight of the rank by the NTK's condition number."""
    zico: float = Field(1.0, ge=0)
    """Weight of the rank by ZiCo."""

    @model_validator(mode="after")
    def _somebody_votes(self) -> Self:
        if self.ntk == self.zico == 0:
            raise ValueError("at least one proxy must have a weight above 0")
        return self


class Pruning(Frozen):
    """When and how much is pruned."""

    stages: Annotated[Positive, up_to(100, "stages")] = 4
    """Number of pruning decisions (k), equally spaced over the pruning part of the run."""
    fraction: float = Field(0.5, gt=0, le=1)
    """Share of the run's steps that the stages take; the rest is recovery. Ours: the paper's is unknown."""
    lookahead: Positive = 2
    """How many grid steps further than "stay" a vote may go."""
    weights: VoteWeights = VoteWeights()
    """How much each proxy counts in the vote."""
    tie: Literal["more", "fewer"] = "more"
    """Which candidate wins a tied vote: the one that prunes more, or fewer."""
    at: Positive = 1
    """The stage, from 1, at which the schedule ``delayed`` removes all blocks at once."""
    rerank: bool = False
    """Score the blocks again at every stage after the first, on the network as it then is."""
    measured_on: Literal["average", "trained", "split"] = "average"
    """Weights that the proxies and re-ranking see: the moving average, which is what is sampled with and evaluated; the
    trained ones, which move on; or the trained ones for the proxies and the average for re-ranking."""

    @model_validator(mode="after")
    def _at_a_stage(self) -> Self:
        if self.at > self.stages:
            raise ValueError(f"at {self.at} lies behind the last of the stages {self.stages}")
        return self

    @property
    def proxied(self) -> Weights:
        """The weights that the proxies see."""
        return "average" if self.measured_on == "average" else "trained"

    @property
    def reranked(self) -> Weights:
        """The weights that re-ranking sees."""
        return "trained" if self.measured_on == "trained" else "average"
