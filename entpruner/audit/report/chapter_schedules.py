"""Chapter 4: whether the schedule changes the distance, how often the vote decides, and what its weights change."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.forest import forest, in_percent
from entpruner.audit.report.page import Chapter, Table
from entpruner.audit.report.words import Wording
from entpruner.audit.schedules import ScheduleRun
from entpruner.audit.statistics import Estimate, mean_over_seeds, ratio_over_seeds
from entpruner.evaluation.intervals import POSITIVE
from entpruner.reporting.words import spoken

METHOD = """\
CED's one ranking, four ways to go down it: all at once, in even steps (linear), by the vote, or by lot among the vote's
candidates. First at equal steps; then at equal training FLOPs, where a schedule that trains a larger network for longer
gets as many steps fewer as makes its cost about that of pruning at once (the FLOPs that it did take stand beside). Two
regimes: a ratio of the paper's with the study's fine-tuning, and the audit's own, where the steps of the whole run are
those of its recovery. The same step sees the same batch in every schedule. `ratio`: the distance over that of pruning
at once at equal steps, by the mean logarithm over seeds; below 1 is nearer to the real images. Intervals: Student's,
over seeds. The vote's weights: NTK has w, ZiCo 1 - w; with w = 0.5 it is the vote above."""
AGAINST_AT_ONCE, AGAINST_EQUAL = (
    Wording(
        below=f"ends nearer to the real images than {reference}",
        above=f"ends further from the real images than {reference}",
        nothing=reference,
        null=1.0,
    )
    for reference in ("pruning at once", "equal weights")
)
REGIMES = {"paper": "the paper's ratio", "hard": "the audit's regime"}

Runs = Mapping[str, Sequence[ScheduleRun]]
"""The name of a schedule or weight -> its runs, one for each seed."""


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Does the schedule matter, and does the vote decide?", METHOD)
    votes = dict[str, Estimate | None]()
    shown: dict[str, dict[str, dict[str, Estimate | None]]] = {}
    for backbone in evidence.scope.proxied:
        contents = evidence.by_seed("schedules", backbone)
        for regime, what in REGIMES.items():
            found = [content[regime] for content in contents]
            chosen, size = found[0]["regime"], found[0]["size"]
            where = f"{backbone}, {what} ({size} blocks, {chosen['steps']} steps)"
            schedules = runs_by(found, "schedules", lambda run: f"{run.schedule}, equal {run.budget}")
            weights = runs_by(found, "weights", lambda run: f"w = {run.weights.ntk:g}")
            at_once, equal, vote = (
                schedules["one_shot, equal steps"],
                weights["w = 0.5"],
                schedules["vote, equal steps"],
            )
            votes[f"{spoken(backbone)} ({what})"] = ratio(vote, at_once)
            for name, one in ratios(schedules, at_once).items():
                shown.setdefault(what, {}).setdefault(spoken(name), {})[spoken(backbone)] = one and in_percent(one)
            chapter.findings += [
                AGAINST_AT_ONCE.finding(f"{where}: schedules", ratios(schedules, at_once)),
                f"**{where}: the vote.** {decided(vote, schedules['linear, equal steps'])}",
                AGAINST_EQUAL.finding(f"{where}: its weights", ratios(weights, equal)),
            ]
            chapter.tables += [
                table(f"schedules_{backbone}_{regime}", f"{where}: schedules", "schedule", schedules, at_once),
                table(f"weights_{backbone}_{regime}", f"{where}: weights of the vote", "NTK's weight", weights, equal),
            ]
    if shown:
        caption = "Distance of each schedule against that of pruning at once, in percent"
        chapter.figures["schedules"] = (caption, partial(forest, shown, "distance against pruning at once (%)"))
    chapter.short += [AGAINST_AT_ONCE.finding("The vote, at equal steps", votes)] if votes else []
    return chapter


def runs_by(found: Sequence[Any], kind: str, name: Callable[[ScheduleRun], str]) -> dict[str, list[ScheduleRun]]:
    """The runs of one kind in the documents of all seeds, grouped by their name."""
    runs: dict[str, list[ScheduleRun]] = {}
    for content in found:
        for run in map(ScheduleRun.model_validate, content[kind]):
            runs.setdefault(name(run), []).append(run)
    return runs


def ratio(runs: Sequence[ScheduleRun], reference: Sequence[ScheduleRun]) -> Estimate | None:
    """The geometric mean over seeds of the distance over that of the reference. None for the reference itself."""
    if runs is reference:
        return None
    return ratio_over_seeds(
        [math.log(run.distance / other.distance) for run, other in zip(runs, reference, strict=True)]
    )


def ratios(runs: Runs, reference: Sequence[ScheduleRun]) -> dict[str, Estimate | None]:
    return {name: ratio(found, reference) for name, found in runs.items() if found is not reference}


def decided(votes: Sequence[ScheduleRun], linear: Sequence[ScheduleRun]) -> str:
    """A sentence on how many stages had a choice, how many votes tied, and how often the vote differed from linear."""
    cast = [decision for run in votes for decision in run.decisions if decision.how == "vote"]
    ties = sum(decision.tied for decision in cast)
    other = sum(path(run) != path(even) for run, even in zip(votes, linear, strict=True))
    return (
        f"{len(cast)} stages had a choice; {ties} of these votes tied, so that the tie rule decided; "
        f"in {other} of {len(votes)} seeds the vote went another way than even steps."
    )


def path(run: ScheduleRun) -> tuple[int, ...]:
    """The number of blocks that are removed after each stage."""
    return tuple(decision.removed for decision in run.decisions)


def table(name: str, caption: str, heading: str, runs: Runs, reference: Sequence[ScheduleRun]) -> Table:
    rows = [
        [
            what,
            "; ".join(", ".join(map(str, path(run))) for run in found),
            sum(decision.tied for run in found for decision in run.decisions),
            mean_over_seeds(steps, POSITIVE) if len(set(steps := [run.steps for run in found])) > 1 else steps[0],
            sum(run.flops for run in found) / len(found) / 1e9,
            mean_over_seeds([run.distance for run in found], POSITIVE),
            ratio(found, reference),
        ]
        for what, found in runs.items()
    ]
    columns = {
        heading: "", "removed after each stage, by seed": "", "ties": "", "steps": ".0f", "GFLOPs": ".1f",
        "distance": ".3g", "ratio": ".2f",
    }  # fmt: skip
    return Table(name, caption, columns, rows)
