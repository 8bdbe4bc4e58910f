"""Compare the schedules at equal steps and at equal FLOPs, and the weights of the vote, in two regimes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from entpruner.audit.commands.bench import BenchPaths, bench_of, journal_of, start_context, write_audit
from entpruner.audit.regime import RegimeChoice
from entpruner.audit.schedules import Budget, ScheduleRun, run_schedule, steps_at_equal_flops
from entpruner.audit.subnetworks import Bench, short_recovery
from entpruner.params.arms import Schedule
from entpruner.params.criteria import module_of
from entpruner.params.pruning import VoteWeights, blocks_to_remove
from entpruner.params.training import Training
from entpruner.rules.audit import SchedulesSettings
from entpruner.scores import score
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.journal import Journal
from entpruner.system.recording import Recorder

SCHEDULES: tuple[Schedule, ...] = ("one_shot", "linear", "vote", "random_vote")  # the first sets the FLOPs


def run(
    settings: SchedulesSettings,
    *,
    regime: Path,
    out: Path,
    **given: Unpack[BenchPaths],
) -> None:
    recorder = Recorder([__name__, module_of("ced")], settings, configure(settings.compute))
    context = start_context(settings, given["store"], given["init"])
    whole = bench_of(settings, context, settings.paper.steps, given)
    journal = journal_of(out, recorder, given, regime)
    order = score("ced", context).order
    content = {}
    for name, chosen in {"paper": settings.paper, "hard": RegimeChoice.from_json(read_json(regime)).regime}.items():
        bench = replace(whole, recovery=short_recovery(settings.finetune, chosen.steps))
        size = blocks_to_remove(len(order), chosen.ratio)
        runs = compared(name, bench, order, size, settings, journal)
        found = {kind: [run.model_dump(mode="json") for run in found] for kind, found in runs.items()}
        content[name] = {"regime": chosen.model_dump(mode="json"), "size": size, **found}
    write_audit(out, content, recorder, journal)


def compared(
    regime: str, bench: Bench, order: Sequence[int], size: int, settings: SchedulesSettings, journal: Journal
) -> dict[str, list[ScheduleRun]]:
    """Every schedule at equal steps, those that cost more again at equal FLOPs; and the vote with each weight."""

    def done(schedule: Schedule, weights: VoteWeights, training: Training, budget: Budget) -> ScheduleRun:
        pruning = settings.pruning.model_copy(update={"weights": weights})

        def compute() -> Any:
            run = run_schedule(bench, schedule, order, size, pruning, settings.proxies, training, budget)
            return run.model_dump(mode="json")

        return ScheduleRun.model_validate(journal.record(f"{regime} {schedule} {weights} {budget}", compute))

    equal = settings.pruning.weights
    at_steps = [done(schedule, equal, bench.recovery, "steps") for schedule in SCHEDULES]
    at_flops = []
    for run in at_steps[1:]:
        steps = steps_at_equal_flops(run, at_steps[0])
        at_flops.append(done(run.schedule, equal, short_recovery(settings.finetune, steps), "flops"))
    weighted = [done("vote", VoteWeights(ntk=w, zico=1 - w), bench.recovery, "steps") for w in settings.weights]
    return {"schedules": [*at_steps, *at_flops], "weights": weighted}
