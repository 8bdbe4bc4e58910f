"""How much is pruned at each stage: the grid of block counts, the candidates of a stage, and the vote among them.

The paper prunes in k stages and lets two training-free proxies vote at each. Its grid, candidates and rule for ties are
not public. Here they follow AutoProg-Zero, an earlier work of the authors: the candidates are "stay" and a few steps
further on an even grid, and the last stage must reach the target. The setting ``tie`` decides ties, and each tie is
recorded. Ties are common: ZiCo's published sum nearly always prefers the larger network, so if the proxies disagree
about two candidates, these are tied.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from entpruner.params.arms import Schedule
from entpruner.params.base import Frozen
from entpruner.params.pruning import Pruning, candidate_counts, removal_grid
from entpruner.proxies import NtkResult, ZicoResult

Measure = Callable[[Sequence[tuple[int, ...]]], Sequence[tuple[NtkResult, ZicoResult]]]
"""A function that measures both proxies of the network without each of these sets of blocks, by original numbers."""

How = Literal["only candidate", "forced to the target", "grid", "vote", "random"]


class Candidate(Frozen):
    """A sub-network that a stage may choose. Proxies, ranks and score are None if there was no vote."""

    removed: int
    """The number of blocks removed by this stage and earlier ones."""
    dropped: tuple[int, ...]
    """The blocks that this stage would drop, lowest score first."""
    kappa: float | None = None
    """The condition number of the NTK; lower is better. It is also None if the Gram matrix is rank-deficient."""
    rank_deficient: bool | None = None
    zico: float | None = None
    """ZiCo; higher is better."""
    rank_ntk: int | None = None
    rank_zico: int | None = None
    score: float | None = None
    """The weighted sum of the ranks; lower is better."""


class Decision(Frozen):
    """The content of ``decision.json``: all that a reader needs to decide a stage again by hand."""

    schedule: Schedule
    stage: int
    stages: int
    grid: tuple[int, ...]
    """The numbers of blocks removed after stage 0, 1, ..., k if every stage goes one step. ``delayed`` has one step."""
    order: tuple[int, ...]
    """The ranked blocks in the order in which they are removed. A stage with a new ranking has the blocks left only."""
    removed_before: int
    candidates: tuple[Candidate, ...]
    weights: dict[str, float]
    tie: Literal["more", "fewer"]
    tied: bool
    """Whether several candidates had the best score, so that ``tie`` decided."""
    how: How
    removed: int
    """``removed`` of the chosen candidate."""
    dropped: tuple[int, ...]
    """``dropped`` of the chosen candidate."""


def ranks(values: Sequence[float], tolerance: float = 1e-6) -> tuple[int, ...]:
    """The ranks of the values, 1 for the lowest. Values that are equal within ``tolerance`` share the better rank."""

    def better(a: float, b: float) -> bool:
        return a < b and not math.isclose(a, b, rel_tol=tolerance)  # infinity is close to itself only

    return tuple(1 + sum(better(other, value) for other in values) for value in values)


def vote(candidates: Sequence[Candidate], pruning: Pruning) -> tuple[tuple[Candidate, ...], int, bool]:
    """Rank the measured candidates by each proxy, and add the weighted ranks. The candidate with the lowest sum wins.

    A lower κ is better, and a rank-deficient network ranks last. A higher ZiCo is better. ``pruning.tie`` decides ties.
    Returns the candidates with their ranks, the index of the winner, and whether there was a tie.
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
    """Decide what a ``stage`` (from 1) of ``stages`` drops, if all stages together remove ``total`` blocks.

    ``order`` are the ranked blocks in the order in which they are removed. ``kept`` are the blocks that are left after
    ``removed`` blocks were removed. Only ``vote`` calls ``measure``, once, and only if it has several candidates. Only
    ``random_vote`` draws from ``random``.
    """
    grid = removal_grid(total, stages, pruning.at if schedule == "delayed" else None)
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
        candidates, chosen, tied = vote(measured(candidates, measure), pruning)
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


def measured(candidates: Sequence[Candidate], measure: Measure) -> list[Candidate]:
    found = measure([candidate.dropped for candidate in candidates])
    return [
        candidate.model_copy(update={"kappa": ntk.kappa, "rank_deficient": ntk.rank_deficient, "zico": zico.value})
        for candidate, (ntk, zico) in zip(candidates, found, strict=True)
    ]
