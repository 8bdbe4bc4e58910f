"""A whole pruning schedule, from the start network to the distance at its end.

Schedules are compared on equal terms: they begin with the same network and ranking, and a step sees the same batch and
noise in all of them.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

from entpruner.audit.subnetworks import Bench, distance
from entpruner.models.arithmetic import training_flops
from entpruner.models.transformer import Transformer
from entpruner.params.arms import Schedule
from entpruner.params.base import Frozen
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import Pruning, VoteWeights, stage_boundaries
from entpruner.params.training import Training
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.schedule import Decision, decide
from entpruner.system.randomness import generator
from entpruner.training.loop import train
from entpruner.training.state import TrainState

Budget = Literal["steps", "flops"]


class ScheduleRun(Frozen):
    """What one schedule cost, and how it ended."""

    schedule: Schedule
    weights: VoteWeights
    budget: Budget
    steps: int
    flops: int
    """The FLOPs of all training steps, without those of the proxies."""
    decisions: tuple[Decision, ...]
    distance: float
    """The distance of the pruned and trained network to the real images."""
    seconds: float


def run_schedule(
    bench: Bench,
    schedule: Schedule,
    order: Sequence[int],
    total: int,
    pruning: Pruning,
    proxies: Proxies,
    training: Training,
    budget: Budget = "steps",
) -> ScheduleRun:
    """Prune ``total`` blocks in ``order``, in the stages of ``pruning``, over ``training.steps`` steps. Then measure.

    All candidates of a stage see the same samples of the proxies. ``budget`` says what the run is compared at.
    """
    began = time.perf_counter()
    context = bench.context
    assert isinstance(context.model, Transformer), "the proxies know no other network"
    stages = 1 if schedule == "one_shot" else pruning.stages
    bounds = stage_boundaries(stages, pruning.fraction, training.steps)
    state = TrainState.start(deepcopy(context.model), training.optimizer)
    decisions, flops = list[Decision](), 0
    for stage in range(1, stages + 2):  # the last round is the recovery, which prunes nothing
        if stage <= stages:
            keys = context.process, context.images, context.seed, f"{context.artefact}/stage{stage}", context.device
            decision = decide(
                schedule,
                pruning,
                stage=stage,
                stages=stages,
                total=total,
                order=order,
                kept=state.model.kept_blocks,
                removed=len(context.model.kept_blocks) - len(state.model.kept_blocks),
                measure=measure_on(state.network(pruning.proxied), context.process, ProxySamples(*keys), proxies),
                random=generator(context.seed, context.artefact, "choice", stage),
            )
            decisions.append(decision)
            state = state.drop_blocks(decision.dropped)
        train(
            state,
            context.process,
            context.images,
            training,
            start=bounds[stage - 1],
            stop=bounds[stage],
            seed=context.seed,
            artefact=f"{context.artefact}/schedules",
            compute=bench.compute,
        )
        steps, kept = bounds[stage] - bounds[stage - 1], state.model.kept_blocks
        flops += training_flops(context.model.architecture, kept, training.batch_size, steps)
    return ScheduleRun(
        schedule=schedule,
        weights=pruning.weights,
        budget=budget,
        steps=training.steps,
        flops=flops,
        decisions=tuple(decisions),
        distance=distance(state.ema, bench, repeat=0),
        seconds=time.perf_counter() - began,
    )
