"""Chapter 6: the public numbers of the paper, each on a page of its own.

A page says what a check of the claim would take, what follows from arithmetic, and what was measured in this study. The
first two come from ``params/reference.yaml``. The third comes from the study's arms of the same kinds. These are of
another size than the paper's, so a page never says that they confirm or refute the claim.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Chapter
from entpruner.audit.statistics import mean_over_seeds
from entpruner.evaluation.cost import cost_key
from entpruner.evaluation.intervals import POSITIVE, UNBOUNDED, Bounds
from entpruner.layout import WITHIN
from entpruner.reporting.reference import Claim
from entpruner.reporting.tabular import markdown_table
from entpruner.study.arms import ArmIdentity

METHOD = """\
What each claim would take to check, what of it is arithmetic, and what this study measured of the same kind, is on the
claim's own page. Numbers of the study: the mean over seeds with Student's interval, or the one seed's."""
OTHER_SCALE = "Other data, networks and features than the paper's: this neither confirms nor refutes the claim."

Values = Mapping[str, float]
"""The kind of an arm -> a number that was measured on it with one seed."""


@dataclass(frozen=True)
class Quantity:
    """A number that a claim is about."""

    heading: str
    form: str
    """The format in which the number is written."""
    of: Callable[[Values, Values], float]
    """Computes the number from the distances and the speed-ups of the three kinds of arm."""
    bounds: Bounds = UNBOUNDED
    by_seed: bool = True
    """False for a time, because networks with the same number of blocks are timed once for all seeds."""


QUANTITIES = {
    "speedup": Quantity(
        "speed-up of EntPruner's network", "{:.2f}×", lambda _, speedup: speedup["entpruner"], by_seed=False
    ),
    "distance": Quantity("EntPruner's distance", "{:.2f}", lambda distance, _: distance["entpruner"], POSITIVE),
    "rise": Quantity(
        "rise of the distance over the unpruned network's",
        "{:+.2f}",
        lambda distance, _: distance["entpruner"] - distance["unpruned"],
    ),
    "improvement": Quantity(
        "EntPruner's distance below LD-Pruner's",
        "{:.1f} %",
        lambda distance, _: 100 * (1 - distance["entpruner"] / distance["ld_pruner"]),
        (-math.inf, 100.0),
    ),
}


@dataclass(frozen=True)
class Line:
    """The quantity of a claim on one backbone and data set."""

    backbone: str
    data: str
    values: tuple[float, ...]
    """The numbers of the seeds. A quantity that is the same for all seeds has a single number."""

    def shown(self, quantity: Quantity) -> str:
        """The mean over the seeds, with its interval if there are several seeds."""
        form, interval = quantity.form, mean_over_seeds(self.values, quantity.bounds)
        mean = form.format(sum(self.values) / len(self.values))
        return mean if interval is None else f"{mean} [{form.format(interval.low)}, {form.format(interval.high)}]"


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("The paper's public numbers", METHOD)
    for claim in evidence.reference.claims:
        lines, quantity, file = lines_of(claim, evidence), QUANTITIES[claim.ours.quantity], f"claims/{claim.name}.md"
        chapter.pages[file] = "\n\n".join(page(claim, quantity, lines, evidence)) + "\n"
        ours = "; ".join(f"{line.backbone} {line.data} {line.shown(quantity)}" for line in lines) or "not run"
        chapter.findings.append(f"[{claim.says}]({file}) Here, {quantity.heading}: {ours}.")
    return chapter


def lines_of(claim: Claim, evidence: Evidence) -> list[Line]:
    """The claim's quantity on every backbone and data set that has all three kinds of arm with each seed."""
    groups: dict[tuple[str, str], dict[int, dict[str, ArmIdentity]]] = {}
    for claimed in evidence.scope.claimed:
        arm = claimed.arm
        if arm.ratio in (None, claim.ours.ratio) and (arm.data == "upstream") == claim.ours.upstream:
            groups.setdefault((arm.backbone, arm.data), {}).setdefault(arm.seed, {})[claimed.kind] = arm
    lines = []
    for where, seeds in groups.items():
        if all(len(kinds) == 3 for kinds in seeds.values()):
            measured = sorted(seeds) if QUANTITIES[claim.ours.quantity].by_seed else [min(seeds)]
            lines.append(Line(*where, tuple(value(claim, seeds[seed], evidence) for seed in measured)))
    return lines


def value(claim: Claim, kinds: Mapping[str, ArmIdentity], evidence: Evidence) -> float:
    """The claim's quantity for one seed."""
    distance, speedup = {}, {}
    for kind, arm in kinds.items():
        card = evidence.records[WITHIN.final(arm.key).files["card"]]
        cost = evidence.records[WITHIN.cost(arm.backbone, arm.data).path]
        distance[kind] = evidence.records[WITHIN.metrics(arm.key).path][evidence.scope.distance]
        speedup[kind] = cost["blocks"][cost_key(len(card["kept_blocks"]))]["speedup"]
    return QUANTITIES[claim.ours.quantity].of(distance, speedup)


def page(claim: Claim, quantity: Quantity, lines: Sequence[Line], evidence: Evidence) -> list[str]:
    """The paragraphs of the claim's page."""
    sources = "; ".join(evidence.reference.evidence[tag] for tag in claim.evidence)
    blocks = [f"# {claim.says}", f"Source: {sources}.", "## What it would take", claim.takes]
    if claim.arithmetic:
        blocks += ["## What is arithmetic", "\n".join(f"- {text}" for text in claim.arithmetic)]
    blocks.append("## What was measured here")
    if not lines:
        return [*blocks, "Nothing: the study has no arms of this kind at this ratio."]
    rows = [(line.backbone, line.data, str(len(line.values)), line.shown(quantity)) for line in lines]
    alone = ""
    if not quantity.by_seed:
        alone = "Timed once, for the networks of all seeds: time follows from the number of blocks. "
    elif any(len(line.values) == 1 for line in lines):
        alone = "One seed: how far another would move these numbers is unknown. "
    table = markdown_table(["backbone", "data", "n", quantity.heading], rows)
    return [*blocks, scale(lines, claim, evidence), table, alone + OTHER_SCALE]


def scale(lines: Sequence[Line], claim: Claim, evidence: Evidence) -> str:
    """A sentence on the images, networks and distance of the study."""
    shapes = set()
    for line in lines:
        manifest = evidence.records[WITHIN.pixels(line.data).files["manifest"]]
        channels, height, width = manifest["shape"]
        source = manifest["source"]["source"]
        shapes.add(f"images of {height}×{width} pixels and {channels} channel(s) ({source})")
    depths = {claimed.arm.depth for claimed in evidence.scope.claimed}
    return (
        f"Study {evidence.scope.study}: {', '.join(sorted(shapes))}; networks of {', '.join(map(str, sorted(depths)))} "
        f"blocks, {claim.ours.ratio:.0%} of them removed; distance `{evidence.scope.distance}`."
    )
