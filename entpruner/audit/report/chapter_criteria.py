"""Chapter 1: whether a criterion's score predicts loss and distance, and whether its set is better than random."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from entpruner.audit.confounds import critical_block
from entpruner.audit.criteria import (
    SETS_ONLY,
    STATISTICS,
    TARGETS,
    Agreements,
    Values,
    agreements,
    block_values,
    rank_among,
)
from entpruner.audit.regime import recovery_noise
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Chapter, Table
from entpruner.audit.report.words import Wording, in_words, listed
from entpruner.audit.statistics import Bootstrapped, Estimate, chance_of_ranks, mean_over_seeds, ratio_over_seeds
from entpruner.audit.subnetworks import Measured
from entpruner.evaluation.intervals import POSITIVE, SHARE
from entpruner.reporting.words import spoken

AFTER = "distance after recovery"
OURS = "ced"
LEVELS = {"blocks": "single blocks", "masks": "random sets"}

METHOD = f"""\
Every single block was removed, and random sets of the regime's size: for each the training loss without it, the
distance before any recovery, and the distance after the regime's short recovery, with the same draws, batches and noise
for all. The loss is measured on other draws than those that criteria see. A set's score is the sum of its blocks'
scores. ρ is Spearman's, τ Kendall's rank correlation, computed within each seed and averaged over seeds; positive is
what the criterion promises. Intervals: hierarchical bootstrap, which draws seeds, and blocks or sets within them.

Criteria that only choose a set of a given size ({", ".join(SETS_ONLY)}) have no scores to sum and stand in the last
table alone: there every criterion's own set was removed and recovered in the same way. `rank` is the share of random
sets that ended at least as near to the real images; `chance` the exact probability of ranks as good, summed over seeds,
had the sets been drawn as the random ones were; `ratio` its distance over the geometric mean of the random sets'.
Intervals there: Student's, over seeds."""
RELATION = Wording("goes with it", "goes against it", "no relation", "not defined, as nothing varies")
OURS_WITH = Wording(
    "goes with", "goes against", "having no relation with", "has, as nothing varies, no defined relation with", OURS
)
AGAINST = Wording("predicts it better than", "predicts it worse than", undefined="is not defined against", subject=OURS)
CHANCE = Wording(
    below="nearer to the real images than the mean random set",
    above="further from the real images than the mean random set",
    nothing="the mean random set",
    null=1.0,
)


@dataclass(frozen=True)
class Measurements:
    """What was measured of one backbone."""

    backbone: str
    values: Mapping[str, Sequence[Values]]
    """Criterion -> its values with each seed. Criteria that only choose sets are left out."""
    measured: Mapping[str, Sequence[Sequence[Measured]]]
    """Level (a key of ``LEVELS``) -> the sub-networks of each seed."""
    choices: Mapping[str, Sequence[Measured]]
    """Criterion -> the sub-network without the set that it removes, with each seed."""

    @staticmethod
    def read(evidence: Evidence, backbone: str) -> "Measurements":
        masks, scores, choices = (evidence.by_seed(part, backbone) for part in ("masks", "scores", "choices"))
        known = {name: entry["audited"]["criterion"] for name, entry in scores[0]["criteria"].items()}
        names = [name for name in evidence.scope.criteria if name in known]
        summed = [name for name in names if known[name] not in SETS_ONLY]
        return Measurements(
            backbone,
            values={name: [block_values(content["criteria"][name]) for content in scores] for name in summed},
            measured={level: [[Measured(**r) for r in content[level]] for content in masks] for level in LEVELS},
            choices={name: [Measured(**content["choices"][name]) for content in choices] for name in names},
        )


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Does the score predict what matters?", METHOD)
    correlations = dict[str, dict[str, dict[str, Estimate | None]]]()  # keys: level, criterion, backbone
    own, seen = dict[str, Estimate | None](), list[str]()
    for backbone in evidence.scope.backbones:
        measurements = Measurements.read(evidence, backbone)
        for level, what in LEVELS.items():
            measured = measurements.measured[level]
            found = agreements(measurements.values, measured, "audit", backbone, level)
            chapter.findings += sentences(f"{backbone}, {len(measured)} seeds × {len(measured[0])} {what}", found)
            chapter.tables.append(agreement_table(measurements, level, found))
            for criterion in measurements.values:
                by_backbone = correlations.setdefault(level, {}).setdefault(criterion, {})
                by_backbone[spoken(backbone)] = found[criterion, AFTER, "ρ"].estimate()
            if level == "masks" and OURS in measurements.values:
                seen.append(f"{spoken(backbone)} {found[OURS, AFTER, 'ρ'].detectable():.2f}")
        chapter.findings.append(spreads(evidence, measurements))
        chapter.tables.append(choice_table(measurements))
        ratios = {name: ratio_over_seeds(log_ratios(measurements, name)) for name in measurements.choices}
        chapter.findings.append(CHANCE.finding(f"{backbone}, the sets that the criteria remove", ratios))
        own |= {backbone: ratios[OURS]} if OURS in ratios else {}
    if correlations:  # there are none if all criteria only choose sets
        caption = f"Rank correlation of each criterion with the {AFTER}, with its interval"
        named = {level: {spoken(name): one for name, one in panel.items()} for level, panel in correlations.items()}
        shown = {f"over {LEVELS[level]}": panel for level, panel in named.items()}
        chapter.figures["criteria"] = (caption, partial(forest, shown, f"Spearman's ρ with the {AFTER}"))
    if seen:
        topic = f"{spoken(OURS)} and the {AFTER}, over random sets"
        chapter.short.append(RELATION.finding(topic, correlations["masks"][OURS]))
        chapter.short.append(f"**What would have been seen**, in four of five such audits: a ρ of {listed(seen)}.")
    if own:
        chapter.short.append(CHANCE.finding(f"The set that {spoken(OURS)} removes", in_words(own)))
    return chapter


def spreads(evidence: Evidence, measurements: Measurements) -> str:
    """A sentence on how far single blocks differ, and how far recoveries of one set do."""
    critical = [critical_block(blocks) for blocks in measurements.measured["blocks"]]
    others = [
        np.std([math.log(record.distance) for record in blocks if record.dropped != (block,)], ddof=1)
        for block, blocks in zip(critical, measurements.measured["blocks"], strict=True)
    ]
    noise = recovery_noise(evidence.regime(measurements.backbone))
    least, most = f"{min(others):.2f}", f"{max(others):.2f}"
    can = "no" if noise >= max(others) else "a"
    return (
        f"**{measurements.backbone}, what there is to predict.** Over single blocks, but for the critical one of "
        f"part 3, the log distance after recovery has a standard deviation of {least} to {most} (the seeds), and of "
        f"{noise:.2f} over recoveries of one set: so {can} ranking of them can be told right from wrong."
    )


def sentences(where: str, found: Agreements) -> list[str]:
    """Findings by ρ: CED with all targets, all criteria with the distance after recovery, and CED against others."""
    after = {criterion: one for (criterion, target, name), one in found.items() if (target, name) == (AFTER, "ρ")}
    said = [RELATION.finding(f"{where}: {AFTER}", estimates(after))]
    if OURS in after:
        ours = {target: found[OURS, target, "ρ"] for target in TARGETS}
        rivals = {criterion: after[OURS] - one for criterion, one in after.items() if criterion != OURS}
        said.insert(0, OURS_WITH.finding(f"{where}: {OURS}", estimates(ours)))
        said.append(AGAINST.finding(f"{where}: {OURS} and its rivals, {AFTER}", estimates(rivals)))
    return said


def estimates(found: Mapping[str, Bootstrapped]) -> dict[str, Estimate | None]:
    return {name: one.estimate() for name, one in found.items()}


def agreement_table(measurements: Measurements, level: str, found: Agreements) -> Table:
    cells = [(target, name) for target in TARGETS for name in STATISTICS]
    columns = {"criterion": ""} | {f"{name} {target}": ".2f" for target, name in cells}
    rows = [[criterion, *(found[criterion, *cell].estimate() for cell in cells)] for criterion in measurements.values]
    caption = f"{measurements.backbone}: rank correlation over {LEVELS[level]}"
    return Table(f"criteria_{measurements.backbone}_{level}", caption, columns, rows)


def log_ratios(measurements: Measurements, criterion: str) -> list[float]:
    """For each seed, the log distance of the criterion's set minus the mean log distance of the random sets."""
    return [
        math.log(own.distance) - float(np.mean([math.log(mask.distance) for mask in masks]))
        for own, masks in zip(measurements.choices[criterion], measurements.measured["masks"], strict=True)
    ]


def choice_table(measurements: Measurements) -> Table:
    """The set that each criterion removes, and its distance after recovery compared with that of the random sets."""
    columns = {
        "criterion": "", "removed, by seed": "", AFTER: ".3g", "rank": ".2f", "chance": ".3f", "ratio": ".2f",
    }  # fmt: skip
    rows, masks = [], measurements.measured["masks"]
    for criterion, own in measurements.choices.items():
        ranks = [rank_among(one.distance, others) for one, others in zip(own, masks, strict=True)]
        shares = [rank / len(others) for rank, others in zip(ranks, masks, strict=True)]
        rows.append(
            [
                criterion,
                "; ".join(", ".join(map(str, one.dropped)) for one in own),
                mean_over_seeds([one.distance for one in own], POSITIVE),
                mean_over_seeds(shares, SHARE),
                chance_of_ranks(ranks, [len(others) for others in masks]),
                ratio_over_seeds(log_ratios(measurements, criterion)),
            ]
        )
    return Table(
        f"criteria_{measurements.backbone}_sets", f"{measurements.backbone}: each criterion's own set", columns, rows
    )
