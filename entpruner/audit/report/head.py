"""The beginning and the end of the page, and the top of the detail: what was measured, where, and in which regime."""

from collections.abc import Iterator

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Table
from entpruner.audit.report.words import listed
from entpruner.layout import DETAIL
from entpruner.params.arms import IN_PARTS, TRANSFORMERS_ONLY
from entpruner.reporting.words import spoken
from entpruner.rules.audit import AuditScope


def opening(evidence: Evidence) -> str:
    """The title of the page, and how to read it."""
    scope = evidence.scope
    names = listed([spoken(backbone) for backbone in scope.backbones])
    lines = [
        f"# What the audit of {scope.study} found",
        f"Sub-networks of {names} ({len(scope.seeds)} seeds) were recovered and measured by their distance to the real "
        "images; smaller is better. Every sentence follows from its numbers by a fixed rule, and says no more "
        "than their intervals do (95 %, in brackets). What cannot be told apart may still differ. Methods, all numbers "
        f"and all other criteria are in [{DETAIL}]({DETAIL}), under the same numbers.",
    ]
    return "\n\n".join(lines)


def closing(evidence: Evidence) -> str:
    """The pages of the paper's public numbers, and what the audit does not say, because it was never run."""
    scope, timings = evidence.scope, evidence.timings()
    machines = listed(sorted({timing["device"] for timing in timings}))
    depths = sorted({len(evidence.by_seed("masks", backbone)[0]["blocks"]) for backbone in scope.backbones})
    size = f"networks of {listed(list(map(str, depths)))} blocks, {scope.samples} images a distance, on {machines}"
    claims = [f"- [{claim.says}](claims/{claim.name}.md)" for claim in evidence.reference.claims]
    lines = ["## The paper's public numbers", "\n".join(claims)]
    lines += ["## What was not run", f"Everything above is of {size}. It need not hold at another scale."]
    if not scope.imported:
        lines[-1] += " The paper's own, DiT-XL/2 and SiT-XL/2 on images of 256 pixels, was not run."
    return "\n\n".join(lines)


def head(evidence: Evidence) -> str:
    """The title of the detail, and the paragraphs on the intervals, the scope and the machine."""
    scope, timings = evidence.scope, evidence.timings()
    minutes = sum(timing["seconds"] for timing in timings) / 60
    machines = sorted({f"{timing['device']}, {timing['threads']} thread(s) a command" for timing in timings})
    made = sorted({f"Python {timing['python']}, torch {timing['torch']}" for timing in timings})
    commits = sorted({str(timing["commit"]) for timing in timings})
    each = "" if scope.imported else ", each trained from nothing"
    lines = [
        f"# Audit of {scope.study}: methods and numbers",
        "Written by `make audit` from the files beside it; every sentence follows from its numbers by a fixed rule "
        "(`entpruner/audit/report/words.py`) and says no more than its interval does. Intervals are of 95 %, each "
        "by itself: of those of things that have nothing to do with each other, about one in twenty leaves out the "
        "null value by chance. A bootstrap interval without width means that nothing varied in what was drawn, not "
        "that nothing would.",
        f"Backbones {', '.join(scope.backbones)} on {scope.data}, {len(scope.seeds)} seeds "
        f"({', '.join(map(str, scope.seeds))}){each}. Distances are `{scope.distance}` of "
        f"{scope.samples} images. Commands took {minutes:.1f} minutes in all on {'; '.join(machines)} "
        f"({'; '.join(made)}; commit {', '.join(commits)}).",
        *particulars(scope),
    ]
    return "\n\n".join(lines)


def particulars(scope: AuditScope) -> Iterator[str]:
    """Paragraphs on published weights, a shortened fine-tuning, U-Nets, and diffusers, where a study has them."""
    if scope.imported:
        moved = "" if scope.data == "upstream" else f"the training that moved them to {scope.data}, "
        others = [backbone for backbone in scope.backbones if backbone not in scope.imported]
        own = f" {listed(others)}: trained from nothing with each seed." if others else ""
        yield (
            f"{listed(scope.imported)}: published weights, the same for every seed. A seed changes {moved}the draws, "
            f"the random sets and the recoveries; no interval says what other published weights would give.{own}"
        )
    if scope.finetune_steps is not None:
        yield f"The study's fine-tuning is shrunk to {scope.finetune_steps} steps wherever it is spoken of below."
    if scope.unets:
        yield (
            f"{listed(scope.unets)}: a U-Net. To leave out one of its residual blocks is to put the identity in its "
            "place, with every skip connection whole: where an encoder block is gone, what entered it is handed over "
            "to the decoder; where a decoder block is gone, the tensor meant for it is merged all the same. What knows "
            f"transformers alone (the proxies, and the criteria {listed(TRANSFORMERS_ONLY)}) leaves it out."
        )
    if scope.stock:
        yield (
            f"{listed(scope.stock)}: a transformer of diffusers, run as a whole. What runs a network part by part (the "
            f"proxies and the vote, and the criteria {listed(IN_PARTS)}) leaves it out."
        )


def regime(evidence: Evidence) -> str:
    """The section on the regime: the choice for every backbone, and a table of all candidates that were tried."""
    found, rows = [], []
    for backbone in evidence.scope.backbones:
        choice = evidence.regime(backbone)
        best = "none reached the required share; this came nearest"
        how = "the first to reach the required share" if choice.reached else best
        found.append(f"- {backbone}: {choice.size} blocks removed, {choice.regime.steps} steps of recovery ({how}).")
        for trial in choice.trials:
            distances = [distance for row in trial.distances for distance in row]
            tried = f"{trial.regime.ratio:.0%} ({len(trial.masks[0])} blocks), {trial.regime.steps} steps"
            sets = f"{len(trial.masks)} × {len(trial.distances[0])}"
            rows.append([backbone, tried, sets, f"{min(distances):.3g} – {max(distances):.3g}", trial.share])
    columns = {"backbone": "", "regime": "", "sets × recoveries": "", "distances": "", "share between sets": ".2f"}
    lines = [
        "## The regime",
        "Where random sets of blocks end at the same distance, no criterion can be right or wrong. So the regime was "
        "chosen by random sets alone, on the first seed, before any criterion was looked at: the first candidate in "
        "which the required share of the variance of the log distance lies between sets and not between recoveries of "
        "one; failing that, the one with the largest share.",
        "\n".join(found),
        Table("regime", "Regimes tried", columns, rows).markdown(),
    ]
    return "\n\n".join(lines)
