"""Part 1: does a criterion's score predict what matters, and is the set that it removes better than chance?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from entpruner.audit.criteria import (
    SETS_ONLY,
    STATISTICS,
    TARGETS,
    Agreement,
    Values,
    agreements,
    block_values,
    rank_among,
)
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.figures import forest
from entpruner.audit.report.page import Part, Table
from entpruner.audit.report.words import Verdict, sorted_out
from entpruner.audit.statistics import Bootstrapped, Estimate, chance_of_ranks, mean_over_seeds
from entpruner.audit.subnetworks import Measured
from entpruner.params.audit import AuditedCriterion
from entpruner.scores import Scores

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
RELATION: dict[Verdict, str] = {
    "above": "Goes with it",
    "below": "Goes against it",
    "open": "Cannot be told apart from no relation",
    "undefined": "Not defined, as nothing varies",
}
OURS_WITH: dict[Verdict, str] = {
    "above": f"{OURS} goes with",
    "below": f"{OURS} goes against",
    "open": f"{OURS} cannot be told apart from having no relation with",
    "undefined": f"{OURS} has, as nothing varies, no defined relation with",
}
CHANCE: dict[Verdict, str] = {
    "below": "Nearer to the real images than the mean random set",
    "above": "Further from the real images than the mean random set",
    "open": "Cannot be told apart from the mean random set",
    "undefined": "Not defined",
}
AGAINST: dict[Verdict, str] = {
    "above": f"{OURS} predicts it better than",
    "below": f"{OURS} predicts it worse than",
    "open": f"{OURS} cannot be told apart from",
    "undefined": "Not defined against",
}


@dataclass(frozen=True)
class Study:
    """One backbone: everything by seed."""

    backbone: str
    values: Mapping[str, Sequence[Values]]
    """Of the criteria whose scores add up."""
    measured: Mapping[str, Sequence[Sequence[Measured]]]
    """Level -> seed -> sub-networks."""
    choices: Mapping[str, Sequence[Measured]]

    @staticmethod
    def read(evidence: Evidence, backbone: str) -> "Study":
        masks, scores, choices = (evidence.by_seed(part, backbone) for part in ("masks", "scores", "choices"))
        entries = scores[0]["criteria"]
        names = [name for name in evidence.scope.criteria if name in entries]
        return Study(
            backbone,
            values={
                name: [values_of(content["criteria"][name]) for content in scores]
                for name in names
                if entries[name]["audited"]["criterion"] not in SETS_ONLY
            },
            measured={level: [[Measured(**r) for r in content[level]] for content in masks] for level in LEVELS},
            choices={name: [Measured(**content["choices"][name]) for content in choices] for name in names},
        )


def values_of(entry: Any) -> Values:
    return block_values(Scores.from_json(entry["scores"]), AuditedCriterion(**entry["audited"]))


def part(evidence: Evidence) -> Part:
    findings, tables, panels = [], [], dict[str, dict[str, dict[str, Estimate | None]]]()
    own = dict[str, Estimate | None]()
    for backbone in evidence.scope.backbones:
        study = Study.read(evidence, backbone)
        for level, what in LEVELS.items():
            found = agreements(study.values, study.measured[level], "audit", backbone, level)
            where = f"{backbone}, {len(study.measured[level])} seeds × {len(study.measured[level][0])} {what}"
            findings += sentences(where, found)
            tables.append(agreement_table(study, level, found))
            for criterion, one in picked(found, "criterion", target=AFTER).items():
                panels.setdefault(f"over {what}", {}).setdefault(criterion, {})[backbone] = one.estimate()
        tables.append(choice_table(study))
        chance = {name: ratio(log_ratios(study, name)) for name in study.choices}
        findings.append(f"**{backbone}, the sets that the criteria remove.** {sorted_out(chance, CHANCE, null=1.0)}")
        own |= {backbone: chance[OURS]} if OURS in chance else {}
    draw = partial(forest, panels, f"Spearman's ρ with the {AFTER}")
    caption = f"Rank correlation of each criterion with the {AFTER}, with its interval"
    figures = {"criteria": (caption, draw)} if panels else {}  # criteria that only choose sets have no correlation
    short = [
        f"**{OURS} and the {AFTER}, {level}.** {sorted_out(panel[OURS], RELATION)}"
        for level, panel in panels.items()
        if OURS in panel
    ]
    short += [f"**The set that {OURS} removes.** {sorted_out(own, CHANCE, null=1.0)}"] if own else []
    return Part("Does the score predict what matters?", METHOD, findings, tables, figures, short=short)


def picked(found: Sequence[Agreement], key: Literal["criterion", "target"], **of: str) -> dict[str, Bootstrapped]:
    """Spearman's correlations of one target by criterion, or of one criterion by target."""
    return {
        getattr(one, key): one.found
        for one in found
        if one.statistic == "ρ" and all(getattr(one, name) == value for name, value in of.items())
    }


def sentences(where: str, found: Sequence[Agreement]) -> list[str]:
    ours, after = picked(found, "target", criterion=OURS), picked(found, "criterion", target=AFTER)
    said = [f"**{where}: {AFTER}.** {sorted_out(estimates(after), RELATION)}"]
    if ours:
        rivals = {name: after[OURS] - other for name, other in after.items() if name != OURS}
        said = [
            f"**{where}: {OURS}.** {sorted_out(estimates(ours), OURS_WITH)}",
            *said,
            f"**{where}: {OURS} and its rivals, {AFTER}.** {sorted_out(estimates(rivals), AGAINST)}",
        ]
    return said


def estimates(found: Mapping[str, Bootstrapped]) -> dict[str, Estimate | None]:
    return {name: one.estimate() for name, one in found.items()}


def agreement_table(study: Study, level: str, found: Sequence[Agreement]) -> Table:
    columns = {"criterion": ""} | {f"{name} {target}": ".2f" for target in TARGETS for name in STATISTICS}
    cells = {(one.criterion, one.target, one.statistic): one.found.estimate() for one in found}
    rows = [
        [criterion, *(cells[criterion, target, name] for target in TARGETS for name in STATISTICS)]
        for criterion in study.values
    ]
    caption = f"{study.backbone}: rank correlation over {LEVELS[level]}"
    return Table(f"criteria_{study.backbone}_{level}", caption, columns, rows)


# ---------------------------------------------------------------------------------------------- the criteria's own sets


def log_ratios(study: Study, criterion: str) -> list[float]:
    """Log distance of the criterion's set over the mean log distance of the random sets: one a seed."""
    return [
        math.log(own.distance) - float(np.mean([math.log(mask.distance) for mask in masks]))
        for own, masks in zip(study.choices[criterion], study.measured["masks"], strict=True)
    ]


def ratio(logs: Sequence[float]) -> Estimate | None:
    found = mean_over_seeds(logs)
    return found and Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def choice_table(study: Study) -> Table:
    rows = []
    for criterion, own in study.choices.items():
        masks = study.measured["masks"]
        ranks = [rank_among(one.distance, others) for one, others in zip(own, masks, strict=True)]
        shares = [rank / len(others) for rank, others in zip(ranks, masks, strict=True)]
        rows.append(
            [
                criterion,
                "; ".join(", ".join(map(str, one.dropped)) for one in own),
                mean_over_seeds([one.distance for one in own]),
                within_unit(mean_over_seeds(shares)),
                chance_of_ranks(ranks, [len(others) for others in masks]),
                ratio(log_ratios(study, criterion)),
            ]
        )
    columns = {
        "criterion": "", "removed, by seed": "", AFTER: ".3g", "rank": ".2f", "chance": ".3f", "ratio": ".2f",
    }  # fmt: skip
    return Table(f"criteria_{study.backbone}_sets", f"{study.backbone}: each criterion's own set", columns, rows)


def within_unit(estimate: Estimate | None) -> Estimate | None:
    """A share is never below 0 or above 1, though Student's interval knows nothing of that."""
    return estimate and Estimate(estimate.value, max(estimate.low, 0.0), min(estimate.high, 1.0))
