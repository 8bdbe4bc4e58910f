"""Chapter 7: how far from Gaussian outputs are, and whether an estimator that assumes no Gaussian predicts better."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from entpruner.audit.criteria import TARGETS, Values, additive
from entpruner.audit.outputs import OUTPUTS, Output, Shape
from entpruner.audit.report.chapter_criteria import AFTER, LEVELS, RELATION, Measurements
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import Wording, listed
from entpruner.audit.statistics import (
    Bootstrapped,
    Estimate,
    Resamples,
    bootstrap,
    holm,
    mean_agreement,
    mean_over_seeds,
    spearman,
)
from entpruner.audit.subnetworks import Measured
from entpruner.evaluation.intervals import UNBOUNDED, Bounds
from entpruner.reporting.words import spoken

USUAL, FREE = "one variance", "nearest neighbours"
"""The paper's estimator, and the one that assumes no Gaussian."""
ESTIMATED = {"scalar": USUAL, "diagonal": "one a coordinate", "low_rank": "low rank", "knn": FREE}
"""The estimators, as people read them."""
LOSS = "loss on removal"

METHOD = """\
CED is the change of an entropy, for which the paper fits a Gaussian to the network's prediction. Here the entropies are
taken of the prediction, of the clean image that a prediction implies, and of whole samples (as many as a distance is
measured on), by four estimators each: one variance for all values (the paper's), one a coordinate, a low-rank
covariance, and nearest neighbours, which assume no Gaussian. All draws are pooled, as CED pools them. Excess kurtosis
and negentropy are 0 for a Gaussian; of one coordinate, the mean over coordinates, and of all values pooled, as one
variance sees them. Negentropy is in nats, from the spacings of the sorted values, less that of as many Gaussian draws.

`alike`: the mean over pairs of the four estimators of Spearman's ρ between the changes of the blocks. Then Spearman's ρ
of the change with what was measured in part 1: over single blocks with the loss on removal, over random sets with the
distance after recovery (the changes of the blocks summed). `minus one variance`: the paired difference of the last;
`p` is corrected for all rows by Holm's method. Intervals: hierarchical bootstrap, as in part 1; of kurtosis and
negentropy, Student's over seeds."""
BETTER = Wording(
    "predicts better than one variance does",
    "predicts worse than one variance does",
    "one variance",
    "not defined",
)
SHAPES = {
    "excess kurtosis": "kurtosis",
    "negentropy": "negentropy",
    "excess kurtosis, pooled": "pooled_kurtosis",
    "negentropy, pooled": "pooled_negentropy",
}
BOUNDS: dict[str, Bounds] = dict.fromkeys(("kurtosis", "pooled_kurtosis"), (-2.0, math.inf))
"""No distribution has an excess kurtosis below -2. An estimate of a negentropy may be below 0."""

QUESTIONS = {"blocks": LOSS, "masks": AFTER}
"""Level (a key of ``LEVELS``) -> the target of part 1 that is shown of it."""
Predictions = Mapping[str, Bootstrapped]
"""The kind of output and the estimator -> Spearman's ρ of the changes with the target of a level."""


@dataclass(frozen=True)
class Found:
    """What was measured of one kind of output of a backbone, with each seed."""

    kind: str
    outputs: Sequence[Output]
    values: Mapping[str, Sequence[Values]]
    """The name of an estimator -> the changes of the blocks with each seed. One with too few draws is left out."""

    @staticmethod
    def read(contents: Sequence[Any], kind: str) -> "Found":
        outputs = [Output.model_validate(content["outputs"][kind]) for content in contents]
        values = {}
        for estimator, name in ESTIMATED.items():
            changes = [output.changes(estimator) for output in outputs]
            if all(changes):
                pairs = zip(contents, changes, strict=True)
                values[name] = [dict(zip(content["blocks"], found or (), strict=True)) for content, found in pairs]
        return Found(kind, outputs, values)

    def alike(self, backbone: str) -> Estimate | None:
        """The mean of Spearman's ρ between the changes of the blocks by two estimators, bootstrapped over blocks."""
        seeds = range(len(self.outputs))
        groups = [tuple(np.array([*by_seed[seed].values()]) for by_seed in self.values.values()) for seed in seeds]
        if len(self.values) < 2:
            return None
        resamples = Resamples.draw([len(group[0]) for group in groups], "audit", "estimators", backbone)
        return bootstrap(groups, mean_agreement, resamples).estimate()

    def named(self, name: str) -> str:
        return f"{self.kind}, {name}"

    def beyond_usual(self, sets: Predictions) -> dict[str, Bootstrapped]:
        """Estimator -> ρ with the distance after recovery, over random sets, minus that of one variance."""
        if USUAL not in self.values:
            return {}
        usual = sets[self.named(USUAL)]
        return {name: sets[self.named(name)] - usual for name in self.values if name != USUAL}


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Does it matter that outputs are not Gaussian?", METHOD)
    forests: dict[str, dict[str, dict[str, Estimate | None]]] = {level: {} for level in LEVELS}
    seen: dict[str, list[str]] = {kind: [] for kind in OUTPUTS}
    predicts, alike = dict[str, Estimate | None](), list[str]()
    for backbone in evidence.scope.backbones:
        name, contents = spoken(backbone), evidence.by_seed("outputs", backbone)
        kinds = [Found.read(contents, kind) for kind in OUTPUTS]
        measured = Measurements.read(evidence, backbone).measured
        values = {found.named(one): by_seed for found in kinds for one, by_seed in found.values.items()}
        within = {level: predicted(values, measured[level], level, backbone) for level in LEVELS}
        chapter.tables += [shapes_table(backbone, kinds), changes_table(backbone, kinds, within)]
        chapter.findings += sentences(backbone, kinds, within)
        for level, predictions in within.items():
            for one, rho in predictions.items():
                forests[level].setdefault(one, {})[name] = rho.estimate()
        for found in kinds:
            seen[found.kind].append(f"{name} {of_seeds(found.outputs, whole, 'negentropy'):.3f}")
        samples = kinds[-1]
        alike += [f"{name} {rho:.2f}" for rho in [samples.alike(backbone)] if rho]
        for one in (USUAL, FREE):
            if one in samples.values:
                predicts[f"{name} by {one}"] = within["masks"][samples.named(one)].estimate()
    caption = f"Rank correlation of entropy changes: over blocks with the {LOSS}, over random sets with the {AFTER}"
    panel = {f"over {LEVELS[level]}: {QUESTIONS[level]}": lines for level, lines in forests.items()}
    chapter.figures["outputs"] = (caption, partial(forest, panel, "Spearman's ρ"))
    prediction, clean, samples_of = (listed(seen[kind]) for kind in OUTPUTS)
    chapter.short.append(
        f"**Negentropy**, in nats a coordinate (0 is Gaussian). What CED sees: {prediction}. The clean images that it "
        f"implies: {clean}. Samples: {samples_of}."
    )
    if alike:
        chapter.short.append(f"**Four estimators of the entropy of samples** rank the blocks alike: ρ {listed(alike)}.")
    if predicts:
        chapter.short.append(RELATION.finding(f"Entropies of samples and the {AFTER}, over random sets", predicts))
    return chapter


def predicted(
    values: Mapping[str, Sequence[Values]], measured: Sequence[Sequence[Measured]], level: str, backbone: str
) -> Predictions:
    """Spearman's ρ of each predictor with the target of the level, within each seed and averaged over the seeds."""
    resamples = Resamples.draw([len(records) for records in measured], "audit", "outputs", backbone, level)
    masks = [[record.dropped for record in records] for records in measured]
    field = TARGETS[QUESTIONS[level]]
    truth = [np.array([getattr(record, field) for record in records]) for records in measured]
    return {
        name: bootstrap(list(zip(map(additive, by_seed, masks), truth, strict=True)), spearman, resamples)
        for name, by_seed in values.items()
    }


def sentences(backbone: str, kinds: Sequence[Found], within: Mapping[str, Predictions]) -> list[str]:
    said = []
    for found in kinds:
        topic = f"{backbone}, entropies of the {found.kind}"
        for level, target in QUESTIONS.items():
            estimates = {name: within[level][found.named(name)].estimate() for name in found.values}
            if estimates:
                said.append(RELATION.finding(f"{topic}: {target}, over {LEVELS[level]}", estimates))
        rivals = {name: one.estimate() for name, one in found.beyond_usual(within["masks"]).items()}
        if rivals:
            said.append(BETTER.finding(f"{topic}: {AFTER}, over random sets", rivals))
    return said


def shapes_table(backbone: str, kinds: Sequence[Found]) -> Table:
    """Kurtosis and negentropy of the whole network's outputs, and of those without the block that moves them most."""
    columns = {"of": "", "network": "", "draws": "d"} | dict.fromkeys(SHAPES, ".3f")
    rows = list[list[Cell]]()
    for found in kinds:
        for network, pick in (("whole", whole), ("without one block, the largest", largest)):
            cells = [of_seeds(found.outputs, pick, field) for field in SHAPES.values()]
            rows.append([found.kind, network, found.outputs[0].draws, *cells])
    return Table(f"outputs_{backbone}_shape", f"{backbone}: how far outputs are from Gaussian", columns, rows)


def of_seeds(outputs: Sequence[Output], pick: Callable[[Sequence[Shape], str], float], field: str) -> Estimate | None:
    return mean_over_seeds([pick(output.shapes, field) for output in outputs], BOUNDS.get(field, UNBOUNDED))


def whole(shapes: Sequence[Shape], field: str) -> float:
    """The value of the whole network; one whose outputs do not vary counts as Gaussian."""
    return getattr(shapes[0], field) or 0.0


def largest(shapes: Sequence[Shape], field: str) -> float:
    """The value that is furthest from 0, over the networks that lack a block."""
    return max((getattr(one, field) or 0.0 for one in shapes[1:]), key=abs)


def changes_table(backbone: str, kinds: Sequence[Found], within: Mapping[str, Predictions]) -> Table:
    columns = {
        "entropies of": "", "estimator": "", "alike": ".2f", f"ρ {LOSS}, blocks": ".2f", f"ρ {AFTER}, sets": ".2f",
        "minus one variance": ".2f", "p, corrected": ".2f",
    }  # fmt: skip
    differences = {
        found.named(name): one for found in kinds for name, one in found.beyond_usual(within["masks"]).items()
    }
    corrected = holm({name: one.chance() for name, one in differences.items()})
    rows = list[list[Cell]]()
    for found in kinds:
        for name in found.values:
            named = found.named(name)
            by_level = [within[level][named].estimate() for level in QUESTIONS]
            minus = differences[named].estimate() if named in differences else None
            rows.append([found.kind, name, found.alike(backbone), *by_level, minus, corrected.get(named)])
    return Table(f"outputs_{backbone}", f"{backbone}: entropy changes by output and estimator", columns, rows)
