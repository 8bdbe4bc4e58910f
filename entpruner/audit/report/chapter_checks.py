"""Chapter 8: quick checks of what the paper says or takes for granted.

Each has a verdict, a word that follows from its numbers by a fixed rule of this module. They stand beside it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullLocator

from entpruner.audit.confounds import critical_block
from entpruner.audit.report.chapter_criteria import OURS, Measurements
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import listed, verdict
from entpruner.audit.stages import Moment
from entpruner.audit.statistics import Estimate, Resamples, bootstrap, mean_over_seeds, ratio_over_seeds, spearman
from entpruner.evaluation.intervals import POSITIVE
from entpruner.layout import WITHIN
from entpruner.reporting.figures import drawing, legend_below, line_styles, panels
from entpruner.reporting.words import sentence, spoken
from entpruner.rules.audit import REDRAWS, FollowedArm
from entpruner.scores import Scores

STEADY = 1.25
"""A ratio is steady if its interval lies between 1 / STEADY and STEADY."""
SMALL, LARGE = 0.1, 0.5
"""Shares of the training's cost: one below the first is small, and one above the second is large."""
MAGNITUDE = "magnitude"
SCORE, PROXIES, DISTANCE, COST = "The score", "The proxies", "The distance", "The cost, against the training's"
"""What the checks are about."""

METHOD = f"""\
A verdict follows from its numbers by a fixed rule. *Entropy*: the signed change when the critical block of part 3
goes; it rises, or falls, if it does with every seed. *Steady*: a ratio whose interval lies within 1/{STEADY:g} and
{STEADY:g}; it has risen, or fallen, if its interval lies above or below 1 otherwise; open if none of these. κ and ZiCo
are medians over the {REDRAWS} draws of part 6, on the same samples at every moment: κ after the last cut over κ at the
start; ZiCo (the mean over layers, as a ratio) after recovery over that after the last cut. *CED and magnitude*:
Spearman's ρ of their values over the blocks, with the bootstrap of part 1. *Distance*: after the last stage over that
after its cut, and after recovery over that at the start, of the arm that part 6 follows. The study itself records it
after the last cut and at the end alone; here every moment was measured, and the last table has them. *Costs*: the
seconds of one ranking and of all votes over those of the training of that arm, and the peak memory of their processes
over that of the training's; a vote is cast in the process that then trains, so its own memory is not known. Small:
below {SMALL:g}; large: above {LARGE:g}. Times are those on the clock.

Ratios: geometric means over seeds with Student's interval on the log."""


class Check(NamedTuple):
    """A check with its verdict for one backbone, and the numbers that the verdict follows from."""

    topic: str
    question: str
    backbone: str
    verdict: str
    numbers: str


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Quick checks", METHOD)
    checks, paths = list[Check](), dict[str, list[list[Moment]]]()
    for backbone in evidence.scope.backbones:
        measurements = Measurements.read(evidence, backbone)
        name, followed = spoken(backbone), evidence.followed(backbone)
        entries = [content["criteria"] for content in evidence.by_seed("scores", backbone)]
        if OURS in entries[0]:
            checks.append(entropy_rises(name, measurements, entries))
        if OURS in measurements.values and MAGNITUDE in measurements.values:
            checks.append(against_magnitude(backbone, measurements))
        if followed:
            moments = [list(map(Moment.model_validate, content["moments"])) for _, content in followed]
            paths[name] = moments
            checks += along_the_stages(name, moments)
            checks += costs(name, evidence, [one for one, _ in followed])
            chapter.tables.append(stages_table(backbone, moments))
    columns = {"about": "", "check": "", "backbone": "", "verdict": "", "numbers": ""}
    chapter.tables.insert(0, Table("checks", "Verdicts", columns, checks))
    for topic in dict.fromkeys(check.topic for check in checks):
        about = [check for check in checks if check.topic == topic]
        said = []
        for question in dict.fromkeys(check.question for check in about):
            of_each = [check for check in about if check.question == question]
            numbers = [f"{check.backbone} **{check.verdict}** ({check.numbers})" for check in of_each]
            chapter.findings.append(f"{topic}: {question}. {'; '.join(numbers)}.")
            said.append(f"{question}: {listed([f'{check.backbone} {check.verdict}' for check in of_each])}")
        chapter.short.append(f"**{topic}.** {sentence('; '.join(said))}.")
    if paths:
        caption = "Proxies and distance at every moment of the pruning, each over that at its start"
        chapter.figures["stages"] = (caption, partial(draw, paths))
    return chapter


# ---------------------------------------------------------------------------------------------------------- questions


def entropy_rises(name: str, measurements: Measurements, entries: Sequence[Mapping[str, Any]]) -> Check:
    """Whether the entropy rises or falls when the critical block goes, by the sign of its change with every seed."""
    changes = []
    for entry, blocks in zip(entries, measurements.measured["blocks"], strict=True):
        scores = Scores.from_json(entry[OURS]["scores"])
        changes.append(dict(zip(scores.blocks, scores.signed, strict=True))[critical_block(blocks)])
    same = {change > 0 for change in changes}
    found = "either way, by seed" if len(same) > 1 else "rises" if same == {True} else "falls"
    numbers = f"{listed([f'{change:+.4f}' for change in changes])} nats a dimension, by seed"
    return Check(SCORE, "entropy when the critical block goes", name, found, numbers)


def against_magnitude(backbone: str, measurements: Measurements) -> Check:
    pairs = [
        tuple(np.array([values[block] for block in sorted(values)]) for values in of_seed)
        for of_seed in zip(measurements.values[OURS], measurements.values[MAGNITUDE], strict=True)
    ]
    resamples = Resamples.draw([len(pair[0]) for pair in pairs], "audit", "magnitude", backbone)
    rho = bootstrap(pairs, spearman, resamples).estimate()
    found = {"above": "alike", "below": "the other way round", "open": "open", "undefined": "not defined"}[verdict(rho)]
    numbers = "not defined" if rho is None else f"ρ {rho:.2f}"
    return Check(SCORE, "CED's ranking against magnitude's", spoken(backbone), found, numbers)


def along_the_stages(name: str, seeds: Sequence[Sequence[Moment]]) -> list[Check]:
    """Whether κ, ZiCo and the distance stay, rise or fall from one moment to another."""
    found = []
    for topic, question, field, later, earlier in (
        (PROXIES, "NTK's κ through pruning", "kappa", last_cut, start),
        (PROXIES, "ZiCo after pruning", "zico_mean", recovered, last_cut),
        (DISTANCE, "while the last stage trains", "distance", last_stage, last_cut),
        (DISTANCE, "after recovery, against the start", "distance", recovered, start),
    ):
        logs = [logarithm(later(moments), field) - logarithm(earlier(moments), field) for moments in seeds]
        if all(map(math.isfinite, logs)):
            ratio = ratio_over_seeds(logs)
            plain = f"ratio {math.exp(logs[0]):.2f}, one seed" if ratio is None else f"ratio {ratio:.2f}"
            found.append(Check(topic, question, name, steadiness(ratio), plain))
        else:
            found.append(Check(topic, question, name, "not defined", "a Gram matrix without full rank has no κ"))
    return found


def steadiness(ratio: Estimate | None) -> str:
    """The verdict on a ratio. Without an interval, as of one seed, it is open."""
    if ratio is None:
        return "open"
    if ratio.low >= 1 / STEADY and ratio.high <= STEADY:
        return "steady"
    return {"above": "has risen", "below": "has fallen", "open": "open", "undefined": "open"}[verdict(ratio, 1.0)]


def logarithm(moment: Moment, field: str) -> float:
    """The logarithm of the distance, of the median κ, or of the ratio that ZiCo's mean over layers is the log of."""
    if field == "distance":
        return math.log(moment.distance)
    if field == "zico_mean":
        return median(drawn.zico_mean for drawn in moment.draws)
    return math.log(median(math.inf if drawn.kappa is None else drawn.kappa for drawn in moment.draws))


def start(moments: Sequence[Moment]) -> Moment:
    return moments[0]


def last_cut(moments: Sequence[Moment]) -> Moment:
    return [moment for moment in moments if moment.after == "a cut"][-1]


def last_stage(moments: Sequence[Moment]) -> Moment:
    """The end of the stage of the last cut."""
    ended = last_cut(moments).stage
    return next(moment for moment in moments if (moment.after, moment.stage) == ("a stage", ended))


def recovered(moments: Sequence[Moment]) -> Moment:
    return moments[-1]


def costs(name: str, evidence: Evidence, arms: Sequence[FollowedArm]) -> list[Check]:
    """Time and memory of a ranking and of the votes, over those of the training."""
    shares: dict[str, list[float]] = {"ranking": [], "votes": [], "memory": []}
    for one in arms:
        arm = one.arm
        scored = evidence.records[WITHIN.scores(arm.backbone, arm.data, arm.seed, one.scores).files["timing"]]
        stages = [WITHIN.stage(arm.key, stage).files for stage in range(1, one.stages + 1)]
        timings = [evidence.records[files["timing"]] for files in (*stages, WITHIN.final(arm.key).files)]
        voted = sum(evidence.records[files["decision"]]["seconds"] for files in stages)
        trained = sum(timing["seconds"] for timing in timings) - voted
        shares["ranking"].append(scored["seconds"] / trained)
        shares["votes"].append(voted / trained)
        shares["memory"].append(scored["peak_memory_mb"] / timings[-1]["peak_memory_mb"])
    questions = {
        "ranking": "time of a ranking by CED",
        "votes": "time of all votes",
        "memory": "memory of a ranking by CED",
    }
    return [Check(COST, questions[what], name, size(values), share(values)) for what, values in shares.items()]


def size(shares: Sequence[float]) -> str:
    mean = fmean(shares)
    return "small" if mean < SMALL else "large" if mean > LARGE else "moderate"


def share(shares: Sequence[float]) -> str:
    return f"{mean_over_seeds(shares, POSITIVE) or shares[0]:.2f} of the training's"


# ------------------------------------------------------------------------------------------------- table and figure


def stages_table(backbone: str, seeds: Sequence[Sequence[Moment]]) -> Table:
    columns = {
        "after": "", "seeds": "d", "blocks": "", "log10 κ": ".2f", "ZiCo": ".1f", "ZiCo, mean": ".3f",
        "distance": ".3g",
    }  # fmt: skip
    by_name: dict[str, list[Moment]] = {}
    for moments in seeds:
        for moment in moments:
            by_name.setdefault(called(moment), []).append(moment)
    rows = list[list[Cell]]()
    for name in sorted(by_name, key=lambda name: order(by_name[name][0])):
        found = by_name[name]
        blocks = ", ".join(str(moment.blocks) for moment in found)
        kappas = [logarithm(moment, "kappa") / math.log(10) for moment in found]
        sums = [median(drawn.zico_sum for drawn in moment.draws) for moment in found]
        means = [logarithm(moment, "zico_mean") for moment in found]
        distances = [moment.distance for moment in found]
        cells = [mean_over_seeds(values) or values[0] for values in (kappas, sums, means)]
        rows.append([name, len(found), blocks, *cells, mean_over_seeds(distances, POSITIVE) or distances[0]])
    return Table(f"stages_{backbone}", f"{backbone}: every moment of the pruning that part 6 follows", columns, rows)


def called(moment: Moment) -> str:
    return moment.after if moment.after in ("the start", "recovery") else f"{moment.after[2:]} {moment.stage}"


def order(moment: Moment) -> tuple[int, int]:
    """Moments in their order: a stage ends after its cut, and recovery is the last."""
    return moment.stage, ["the start", "a cut", "a stage", "recovery"].index(moment.after)


def draw(paths: Mapping[str, Sequence[Sequence[Moment]]], target: Path) -> None:
    """Draw κ, the ratio of ZiCo and the distance over those at the start, a line for each backbone and seed."""
    quantities = {"κ": "kappa", "ZiCo, mean ratio": "zico_mean", "distance": "distance"}
    styles = line_styles(paths)
    every = sorted({order(m): called(m) for seeds in paths.values() for ms in seeds for m in ms}.items())
    places = {name: place for place, (_, name) in enumerate(every)}
    with drawing(target, 3.4 * len(quantities), 3.4) as figure:
        for title, (axes,) in panels(figure, quantities).items():
            field = quantities[title]
            for name, seeds in paths.items():
                for moments in seeds:
                    logs = [logarithm(moment, field) for moment in moments]
                    ratios = [math.exp(log - logs[0]) for log in logs]
                    axes.plot([places[called(m)] for m in moments], ratios, marker="o", markersize=3, **styles[name])
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.axhline(1, color="0.4", linewidth=0.8)
            axes.set_xticks(range(len(places)), list(places), rotation=90)
        figure.axes[0].set_ylabel("over that at the start")
        legend_below(figure, styles, columns=len(styles))
