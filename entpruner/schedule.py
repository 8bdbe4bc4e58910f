"""When and how much is pruned: the grid of block counts, the candidates of a stage, and the vote among them.

The paper prunes in k stages and lets two training-free proxies vote on each; grid, candidates and the tie rule are not
public. Ours follow the authors' earlier AutoProg-Zero: the candidates are "stay" and a few steps further on an even
grid, and the last stage is forced to the target. A two-way tie is decided by a rule of its own, ``tie``, and recorded:
ZiCo's published sum always prefers the larger network, so with it every disagreement of two candidates is a tie.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from entpruner.params.arms import Schedule
from entpruner.params.base import Frozen
from entpruner.params.pruning import Pruning, candidate_counts, removal_grid
from entpruner.proxies import NtkResult, ZicoResult

Measure = Callable[[tuple[int, ...]], tuple[NtkResult, ZicoResult]]
"""Both proxies of the network without these blocks (original numbering)."""

How = Literal["only candidate", "forced to the target", "grid", "vote", "random"]


class Candidate(Frozen):
    """A sub-network that a stage may choose; the numbers are None where nothing was voted on."""

    removed: int
    """Blocks removed in all, earlier stages included."""
    dropped: tuple[int, ...]
    """The blocks that this stage would drop, in the order of their scores."""
    kappa: float | None = None
    """NTK condition number, lower is better; None for a rank-deficient Gram matrix too, which ranks last."""
    rank_deficient: bool | None = None
    zico: float | None = None
    """Higher is better."""
    rank_ntk: int | None = None
    rank_zico: int | None = None
    score: float | None = None
    """Weighted sum of the ranks, lower is better."""


class Decision(Frozen):
    """One stage: all that a reader needs to redo it by hand. The content of ``decision.json``."""

    schedule: Schedule
    stage: int
    stages: int
    grid: tuple[int, ...]
    """Blocks removed after stage 0, 1, ..., k if every stage went one step."""
    order: tuple[int, ...]
    """The blocks in the order in which they are removed: scores.json, or at a re-ranked stage those that are left."""
    removed_before: int
    candidates: tuple[Candidate, ...]
    weights: dict[str, float]
    tie: Literal["more", "fewer"]
    tied: bool
    """Whether the best score was shared, so that ``tie`` decided."""
    how: How
    removed: int
    dropped: tuple[int, ...]
    """What was chosen."""


def ranks(values: Sequence[float], tolerance: float = 1e-6) -> tuple[int, ...]:
    """1 for the lowest; values equal to a relative ``tolerance`` share the better rank."""

    def better(a: float, b: float) -> bool:
        return a < b and not math.isclose(a, b, rel_tol=tolerance)  # infinity is close to nothing but itself

    return tuple(1 + sum(better(other, value) for other in values) for value in values)


def vote(candidates: Sequence[Candidate], pruning: Pruning) -> tuple[tuple[Candidate, ...], int, bool]:
    """Rank the measured candidates by each proxy, add the weighted ranks; returns them, the winner's index, and ties.

    κ: lower is better, rank-deficient last. ZiCo: higher is better. The lowest sum wins, ties go to ``pruning.tie``.
    """
    by_ntk = ranks([float("inf") if c.kappa is None else c.kappa for c in candidates])
    by_zico = ranks([-c.zico if c.zico is not None else float("inf") for c in candidates])
    weights = pruning.weights
    scores = [weights.ntk * n + weights.zico * z for n, z in zip(by_ntk, by_zico, strict=True)]
    scored = tuple(
        candidate.model_copy(update={"rank_ntk": n, "rank_zico": z, "score": score})
        for candidate, n, z, score in zip(candidates, by_ntk, by_zico, scores, strict=True)
    )
    best = [index for index, score in enumerate(scores) if score <= min(scores) + 1e-9]
    pick = max if pruning.tie == "more" else min
    return scored, pick(best, key=lambda index: scored[index].removed), len(best) > 1


def decide(
    schedule: Schedule,
    pruning: Pruning,
    *,
    stage: int,
    stages: int,
    total: int,
    order: Sequence[int],
    kept: Sequence[int],
    removed: int,
    measure: Measure,
    random: torch.Generator,
) -> Decision:
    """What stage ``stage`` (from 1) of ``stages`` drops, on the way to ``total`` blocks in all.

    ``order`` are the scored blocks, the first to go first; ``kept`` the blocks that are left, after ``removed`` went.
    ``measure`` is asked only by ``vote`` with more than one candidate, ``random`` only by ``random_vote``.
    """
    grid = removal_grid(total, stages)
    still = [block for block in order if block in kept]
    choosing = schedule in ("vote", "random_vote")
    counts = candidate_counts(grid, removed, stage, pruning.lookahead) if choosing else (grid[stage],)
    candidates = tuple(Candidate(removed=count, dropped=tuple(still[: count - removed])) for count in counts)
    chosen, tied = 0, False
    how: How
    if not choosing:
        how = "grid"
    elif len(candidates) == 1:
        how = "forced to the target" if stage == stages else "only candidate"
    elif schedule == "vote":
        how = "vote"
        candidates, chosen, tied = vote([measured(candidate, measure) for candidate in candidates], pruning)
    else:
        how = "random"
        chosen = int(torch.randint(len(candidates), (), generator=random))
    return Decision(
        schedule=schedule,
        stage=stage,
        stages=stages,
        grid=grid,
        order=tuple(order),
        removed_before=removed,
        candidates=candidates,
        weights=pruning.weights.model_dump(),
        tie=pruning.tie,
        tied=tied,
        how=how,
        removed=candidates[chosen].removed,
        dropped=candidates[chosen].dropped,
    )


def measured(candidate: Candidate, measure: Measure) -> Candidate:
    ntk, zico = measure(candidate.dropped)
    return candidate.model_copy(update={"kappa": ntk.kappa, "rank_deficient": ntk.rank_deficient, "zico": zico.value})
