"""Compare the schedules at equal steps and at equal FLOPs, and the weights of the vote, in two regimes.

At equal steps, a schedule that prunes late trains a larger network for longer than pruning at once does. At equal
FLOPs it gets fewer steps, so that it costs about the same: its steps are multiplied by the ratio of the two costs at
equal steps. The cost of a vote is known only after a run, and a shorter run may vote differently, so each run records
its own cost.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from entpruner.audit.commands.bench import Audit, BenchPaths, bench_of
from entpruner.audit.regime import RegimeChoice
from entpruner.audit.schedules import Budget, ScheduleRun, run_schedule
from entpruner.audit.subnetworks import Bench, short_recovery
from entpruner.params.arms import Schedule
from entpruner.params.pruning import VoteWeights, blocks_to_remove
from entpruner.params.training import Training
from entpruner.rules.audit import SchedulesSettings
from entpruner.scores import score
from entpruner.system.files import read_json

SCHEDULES: tuple[Schedule, ...] = ("one_shot", "linear", "vote", "random_vote")
"""The schedules that are compared. The cost of the first is the budget at equal FLOPs."""


def run(settings: SchedulesSettings, *, regime: Path, out: Path, **given: Unpack[BenchPaths]) -> None:
    audit = Audit(__name__, settings, out, given, regime, criteria=["ced"])
    whole = bench_of(settings, audit.context, settings.paper.steps, given)
    order = score("ced", audit.context).order
    content = {}
    for name, chosen in {
        "paper": settings.paper,
        "hard": RegimeChoice.model_validate(read_json(regime)).regime,
    }.items():
        bench = replace(whole, recovery=short_recovery(settings.finetune, chosen.steps))
        size = blocks_to_remove(len(order), chosen.ratio)
        runs = compared(name, bench, order, size, settings, audit)
        found = {kind: [run.model_dump(mode="json") for run in found] for kind, found in runs.items()}
        content[name] = {"regime": chosen.model_dump(mode="json"), "size": size, **found}
    audit.write(content)


def compared(
    regime: str, bench: Bench, order: Sequence[int], size: int, settings: SchedulesSettings, audit: Audit
) -> dict[str, list[ScheduleRun]]:
    """The runs in one regime: every schedule at equal steps, all but the first again at equal FLOPs, and the vote with
    each weight of NTK."""

    def done(schedule: Schedule, weights: VoteWeights, training: Training, budget: Budget) -> ScheduleRun:
        pruning = settings.pruning.model_copy(update={"weights": weights})

        def run() -> ScheduleRun:
            return run_schedule(bench, schedule, order, size, pruning, settings.proxies, training, budget)

        return ScheduleRun.model_validate(audit.record(f"{regime} {schedule} {weights} {budget}", run))

    equal = settings.pruning.weights
    at_steps = [done(schedule, equal, bench.recovery, "steps") for schedule in SCHEDULES]
    at_flops = []
    for run in at_steps[1:]:
        steps = round(run.steps * at_steps[0].flops / run.flops)
        at_flops.append(done(run.schedule, equal, short_recovery(settings.finetune, steps), "flops"))
    weighted = [done("vote", VoteWeights(ntk=w, zico=1 - w), bench.recovery, "steps") for w in settings.weights]
    return {"schedules": [*at_steps, *at_flops], "weights": weighted}
