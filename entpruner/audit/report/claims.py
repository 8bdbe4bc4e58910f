"""Part 5: each public number of the paper on a page of its own: what it would take, arithmetic, what was measured.

The paper's side stands in ``params/reference.yaml``. Ours are the study's arms of the same kinds, at the study's own
scale: the pages say what came out there, and never that it settles the claim.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Part
from entpruner.audit.statistics import Estimate, mean_over_seeds
from entpruner.reporting.reference import Claim
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json

METHOD = """\
What each claim would take to check, what of it is arithmetic, and what this study measured of the same kind, is on the
claim's own page. Numbers of the study: the mean over seeds with Student's interval, or the one seed's."""
OTHER_SCALE = "Other data, networks and features than the paper's: this neither confirms nor refutes the claim."

Values = Mapping[str, float]
"""Kind of arm -> its number, of one seed."""


@dataclass(frozen=True)
class Quantity:
    heading: str
    form: str
    of: Callable[[Values, Values], float]
    """From the kinds' distances and speed-ups."""
    by_seed: bool = True
    """Not so of times: networks of as many blocks are timed once, for all seeds."""


QUANTITIES = {
    "speedup": Quantity(
        "speed-up of EntPruner's network", "{:.2f}×", lambda _, speedup: speedup["entpruner"], by_seed=False
    ),
    "distance": Quantity("EntPruner's distance", "{:.2f}", lambda distance, _: distance["entpruner"]),
    "rise": Quantity(
        "rise of the distance over the unpruned network's",
        "{:+.2f}",
        lambda distance, _: distance["entpruner"] - distance["unpruned"],
    ),
    "improvement": Quantity(
        "EntPruner's distance below LD-Pruner's",
        "{:.1f} %",
        lambda distance, _: 100 * (1 - distance["entpruner"] / distance["ld_pruner"]),
    ),
}


@dataclass(frozen=True)
class Line:
    """One backbone and data set: a number a seed, or one alone."""

    backbone: str
    data: str
    values: tuple[float, ...]

    def shown(self, form: str) -> str:
        """The mean, and its interval where there are several seeds."""
        mean = form.format(sum(self.values) / len(self.values))
        interval: Estimate | None = mean_over_seeds(self.values)
        return mean if interval is None else f"{mean} [{form.format(interval.low)}, {form.format(interval.high)}]"


def part(evidence: Evidence) -> Part:
    findings, pages = [], {}
    for claim in evidence.reference.claims:
        lines = lines_of(claim, evidence)
        file = f"claims/{claim.name}.md"
        pages[file] = page(claim, lines, evidence)
        form = QUANTITIES[claim.ours.quantity].form
        ours = "; ".join(f"{line.backbone} {line.data} {line.shown(form)}" for line in lines) or "not run"
        findings.append(f"[{claim.says}]({file}) Here, {QUANTITIES[claim.ours.quantity].heading}: {ours}.")
    return Part("The paper's public numbers", METHOD, findings, pages=pages)


def lines_of(claim: Claim, evidence: Evidence) -> list[Line]:
    """The claim's quantity on every backbone and data set where all three kinds of arm are, seed by seed."""
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
    distance, speedup = {}, {}
    for kind, arm in kinds.items():
        folder = evidence.results / "arms" / arm.key
        distance[kind] = read_json(folder / "metrics.json")[evidence.scope.distance]
        kept = len(read_json(folder / "final/model.json")["kept_blocks"])
        cost = read_json(evidence.results / "cost" / f"{arm.backbone}-{arm.data}.json")
        speedup[kind] = cost["blocks"][str(kept)]["speedup"]
    return QUANTITIES[claim.ours.quantity].of(distance, speedup)


def page(claim: Claim, lines: Sequence[Line], evidence: Evidence) -> str:
    quantity = QUANTITIES[claim.ours.quantity]
    sources = "; ".join(evidence.reference.evidence[tag] for tag in claim.evidence)
    blocks = [f"# {claim.says}", f"Source: {sources}.", "## What it would take", claim.takes]
    if claim.arithmetic:
        blocks += ["## What is arithmetic", "\n".join(f"- {text}" for text in claim.arithmetic)]
    blocks += ["## What was measured here"]
    if not lines:
        return "\n\n".join([*blocks, "Nothing: the study has no arms of this kind at this ratio."]) + "\n"
    table = [f"| backbone | data | n | {quantity.heading} |", "| --- | --- | --- | --- |"]
    table += [f"| {e.backbone} | {e.data} | {len(e.values)} | {e.shown(quantity.form)} |" for e in lines]
    single = min(len(line.values) for line in lines) == 1
    alone = "One seed: how far another would move these numbers is unknown. " if single else ""
    if not quantity.by_seed:
        alone = "Timed once, for the networks of all seeds: time follows from the number of blocks. "
    blocks += [scale(lines, claim, evidence), "\n".join(table), alone + OTHER_SCALE]
    return "\n\n".join(blocks) + "\n"


def scale(lines: Sequence[Line], claim: Claim, evidence: Evidence) -> str:
    """At what size it was measured, in words."""
    manifests = [read_json(evidence.results / "data" / line.data / "manifest.json") for line in lines]
    shapes = {image_text(manifest) for manifest in manifests}
    depths = {claimed.arm.depth for claimed in evidence.scope.claimed}
    return (
        f"Study {evidence.scope.study}: {', '.join(sorted(shapes))}; networks of {', '.join(map(str, sorted(depths)))} "
        f"blocks, {claim.ours.ratio:.0%} of them removed; distance `{evidence.scope.distance}`."
    )


def image_text(manifest: Mapping[str, Any]) -> str:
    channels, height, width = manifest["shape"]
    return f"images of {height}×{width} pixels and {channels} channel(s) ({manifest['source']['source']})"
