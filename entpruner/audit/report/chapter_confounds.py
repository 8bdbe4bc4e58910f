"""Chapter 3: what the correlations of chapters 1 and 2 are worth once the most important block is taken out of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from entpruner.audit.confounds import BIT, ThreeWays, critical_block, removes, three_ways
from entpruner.audit.criteria import additive
from entpruner.audit.report.chapter_criteria import AFTER, OURS, RELATION, Measurements
from entpruner.audit.report.chapter_proxies import proxies
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import Wording, in_words, listed
from entpruner.audit.statistics import Bootstrapped, Estimate, Floats, holm, told_apart
from entpruner.params.audit import AuditedProxies
from entpruner.reporting.words import spoken

LOSSES, LOSS, BEFORE = "loss on removal, summed over blocks", "loss of the set", "distance of the set before recovery"
CEILINGS = (LOSSES, LOSS, BEFORE)
"""Predictors that no criterion has, because they measure what a set does. They show how much can be predicted."""
PANELS = "over all sets", "over sets that keep the critical block"

METHOD = """\
The critical block of a network is the one whose removal alone raises the training loss most. ρ is Spearman's, of each
predictor with the distance after recovery, over the random sets of part 1: over all sets; over those that keep the
critical block; and over all, minus the ρ of the one bit that says whether a set removes that block. A proxy predicts
with the opposite of what the vote prefers, at the numbers of samples and batches that the vote uses. Ceilings, which
measure a set instead of predicting: its training loss, its distance before recovery, and the sum of the losses of its
blocks, each removed alone. `p`: that the difference is none, twice the share of resamples on the rarer side of 0, then
corrected for all comparisons of the table by Holm's method. `detectable`: the difference that four of five audits of
this size would tell apart from none, without the correction. Intervals: hierarchical bootstrap, as in part 1."""
WITHIN = Wording("still goes with it", "goes against it", "no relation", "not defined, as too few sets keep the block")


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Does more than one critical block predict?", METHOD)
    kept, bits = dict[str, Estimate | None](), dict[str, Estimate | None]()
    forests: dict[str, dict[str, dict[str, Estimate | None]]] = {panel: {} for panel in PANELS}
    for backbone in evidence.scope.backbones:
        measurements = Measurements.read(evidence, backbone)
        sets = measurements.measured["masks"]
        critical = [critical_block(blocks) for blocks in measurements.measured["blocks"]]
        found = three_ways(harms(evidence, measurements), sets, critical, "audit", "confounds", backbone)
        chapter.findings.append(where(evidence, backbone, measurements, critical))
        chapter.findings.append(told(backbone, found))
        within = {name: estimate(ways.kept) for name, ways in found.items() if name != BIT}
        chapter.findings.append(WITHIN.finding(f"{backbone}, over the sets that keep that block", within))
        bits[spoken(backbone)] = found[BIT].all_sets.estimate()
        chapter.tables.append(three_ways_table(backbone, found))
        if OURS in measurements.values:
            ours = found[OURS].all_sets
            rivals = {name: ours - found[name].all_sets for name in measurements.values if name != OURS}
            chapter.tables.append(rivals_table(backbone, rivals))
            chapter.findings.append(
                f"**{backbone}: {OURS} against {len(rivals)} rivals.** {outcome(rivals, 'its rival')}"
            )
            kept[backbone] = estimate(found[OURS].kept)
        for name, ways in found.items():
            for panel, one in zip(PANELS, (ways.all_sets, ways.kept), strict=True):
                forests[panel].setdefault(spoken(name), {})[spoken(backbone)] = estimate(one)
    caption = f"Rank correlation with the {AFTER}, over all random sets and over those that keep the critical block"
    chapter.figures["confounds"] = (caption, partial(forest, forests, f"Spearman's ρ with the {AFTER}"))
    chapter.short.append(RELATION.finding("The one bit that a set removes the critical block", bits))
    if kept:
        topic = f"{spoken(OURS)}, over the random sets that keep that block"
        chapter.short.append(WITHIN.finding(topic, in_words(kept)))
    return chapter


def harms(evidence: Evidence, measurements: Measurements) -> dict[str, list[Floats]]:
    """Predictor -> the harm that it expects of each random set, with each seed: (repeats, sets)."""
    sets, blocks = measurements.measured["masks"], measurements.measured["blocks"]
    dropped = [[record.dropped for record in records] for records in sets]
    losses = [{record.dropped[0]: record.loss for record in records} for records in blocks]
    found = {
        name: [additive(values, masks)[None] for values, masks in zip(by_seed, dropped, strict=True)]
        for name, by_seed in {**measurements.values, LOSSES: losses}.items()
    }
    ceilings = {LOSS: "loss", BEFORE: "distance_before"}
    for name, field in ceilings.items():
        found[name] = [np.array([[getattr(record, field) for record in records]]) for records in sets]
    if measurements.backbone in evidence.scope.proxied:
        found |= proxy_harms(evidence.by_seed("proxies", measurements.backbone))
    return found


def proxy_harms(contents: Sequence[Any]) -> dict[str, list[Floats]]:
    """The harm that each proxy expects, at the numbers of samples and batches of the vote, if these were audited."""
    used = contents[0]["timing"]["settings"]["proxies"]
    names = f"κ (N = {used['ntk']['samples']})", f"ZiCo {used['zico']['reduction']} (D = {used['zico']['batches']})"
    return {
        proxy.name: [-proxy.prefers * proxy.repeats(content["masks"]) for content in contents]
        for proxy in proxies(AuditedProxies.model_validate(contents[0]["sweeps"]))
        if proxy.name in names
    }


def where(evidence: Evidence, backbone: str, measurements: Measurements, critical: Sequence[int]) -> str:
    """A sentence on the critical blocks, what recovery leaves of their harm, and how many sets remove them."""
    sets, alone = measurements.measured["masks"], []
    for block, blocks in zip(critical, measurements.measured["blocks"], strict=True):
        after = {record.dropped[0]: record.distance for record in blocks}
        alone.append(f"{after[block] / np.median(list(after.values())):.2f}")
    gone = sum(int(removes(records, block).sum()) for records, block in zip(sets, critical, strict=True))
    blocks_of = ", ".join(f"{block} (seed {seed})" for block, seed in zip(critical, evidence.scope.seeds, strict=True))
    return (
        f"**{backbone}: the critical block.** It is block {blocks_of}. Without it alone, a recovered network ends at "
        f"{listed(alone)} times the distance that it has without the median block; "
        f"{gone} of {sum(map(len, sets))} random sets remove it."
    )


def told(backbone: str, found: Mapping[str, ThreeWays]) -> str:
    """Sentences on the bit, and on what predicts better or worse than it after Holm's correction."""
    differences = {name: ways.beyond for name, ways in found.items() if ways.beyond and name not in CEILINGS}
    bit = found[BIT].all_sets.estimate()
    named = "not defined" if bit is None else f"{bit:.2f}"
    return f"**{backbone}: against the one bit**, whose ρ is {named}. {outcome(differences, 'it')}"


def outcome(differences: Mapping[str, Bootstrapped], other: str) -> str:
    """A sentence on the differences that are told apart from none after the correction."""
    names = told_apart(differences)
    count = f"After correction for {len(differences)} comparisons"
    if not names:
        return f"{count}, none can be told apart from {other}."
    better, worse = ([name for name in names if sign * differences[name].value > 0] for sign in (1, -1))
    said = [f"{listed(which)} {word}" for which, word in ((better, "above 0"), (worse, "below 0")) if which]
    return f"{count}, these differences are not chance: {'; '.join(said)}."


def three_ways_table(backbone: str, found: Mapping[str, ThreeWays]) -> Table:
    differences = {name: ways.beyond for name, ways in found.items() if ways.beyond}
    corrected = holm({name: one.chance() for name, one in differences.items()})
    rows = list[list[Cell]]()
    for name, ways in found.items():
        row: list[Cell] = [name, ways.all_sets.estimate(), estimate(ways.kept), estimate(ways.beyond)]
        rows.append([*row, corrected.get(name), None if ways.beyond is None else ways.beyond.detectable()])
    columns = {
        "predictor": "", "all sets": ".2f", "sets that keep it": ".2f", "minus the bit": ".2f", "p, corrected": ".2f",
        "detectable": ".2f",
    }  # fmt: skip
    return Table(f"confounds_{backbone}", f"{backbone}: ρ with the {AFTER}, three ways", columns, rows)


def rivals_table(backbone: str, rivals: Mapping[str, Bootstrapped]) -> Table:
    chances = {name: one.chance() for name, one in rivals.items()}
    corrected = holm(chances)
    rows = [[name, one.estimate(), chances[name], corrected[name], one.detectable()] for name, one in rivals.items()]
    columns = {"rival": "", f"{OURS} minus rival": ".2f", "p": ".3f", "p, corrected": ".2f", "detectable": ".2f"}
    return Table(f"rivals_{backbone}", f"{backbone}: {OURS} against its rivals over random sets", columns, rows)


def estimate(found: Bootstrapped | None) -> Estimate | None:
    return None if found is None else found.estimate()
