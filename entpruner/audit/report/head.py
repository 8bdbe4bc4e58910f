"""The top of the audit's report: what was measured, in which regime, on which machine."""

from entpruner.audit.regime import RegimeChoice
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Table
from entpruner.audit.report.words import listed
from entpruner.params.arms import TRANSFORMERS_ONLY
from entpruner.rules.audit import AuditScope


def head(evidence: Evidence) -> str:
    scope, timings = evidence.scope, evidence.timings()
    minutes = sum(timing["seconds"] for timing in timings) / 60
    machines = sorted({f"{timing['device']}, {timing['threads']} thread(s) a command" for timing in timings})
    made = sorted({f"Python {timing['python']}, torch {timing['torch']}" for timing in timings})
    each = "" if scope.imported else ", each trained from nothing"
    commits = sorted({str(timing["commit"]) for timing in timings})
    lines = [
        f"# Audit of {scope.study}",
        "Written by `make audit` from the files beside it; every sentence follows from its numbers by a fixed rule "
        "(`entpruner/audit/report/words.py`) and says no more than its interval does. Intervals are of 95 %, each "
        "by itself: of those of things that have nothing to do with each other, about one in twenty leaves out the "
        "null value by chance. A bootstrap interval without width means that nothing varied in what was drawn, not "
        "that nothing would.",
        f"Backbones {', '.join(scope.backbones)} on {scope.data}, {len(scope.seeds)} seeds "
        f"({', '.join(map(str, scope.seeds))}){each}. Distances are `{scope.distance}` of "
        f"{scope.samples} images. Commands took {minutes:.1f} minutes in all on {'; '.join(machines)} "
        f"({'; '.join(made)}; commit {', '.join(commits)}).",
        *imported(scope),
        *shortened(scope),
        *unets(scope),
    ]
    return "\n\n".join(lines)


def regime(evidence: Evidence) -> str:
    lines = [
        "## The regime",
        "Where random sets of blocks end at the same distance, no criterion can be right or wrong. So the regime was "
        "chosen by random sets alone, on the first seed, before any criterion was looked at: the first candidate in "
        "which the required share of the variance of the log distance lies between sets and not between recoveries of "
        "one; failing that, the one with the largest share.",
        "\n".join(f"- {sentence(evidence, backbone)}" for backbone in evidence.scope.backbones),
        tried(evidence).markdown(),
    ]
    return "\n\n".join(lines)


def imported(scope: AuditScope) -> list[str]:
    """What seeds share where weights are published."""
    if not scope.imported:
        return []
    others = [backbone for backbone in scope.backbones if backbone not in scope.imported]
    moved = "" if scope.data == "upstream" else f"the training that moved them to {scope.data}, "
    return [
        f"{listed(scope.imported)}: published weights, the same for every seed. A seed changes {moved}the draws, the "
        "random sets and the recoveries; no interval says what other published weights would give."
        + (f" {listed(others)}: trained from nothing with each seed." if others else "")
    ]


def shortened(scope: AuditScope) -> list[str]:
    if scope.finetune_steps is None:
        return []
    return [f"The study's fine-tuning is shrunk to {scope.finetune_steps} steps wherever it is spoken of below."]


def unets(scope: AuditScope) -> list[str]:
    """What stands apart where a backbone is no transformer."""
    if not scope.unets:
        return []
    return [
        f"{listed(scope.unets)}: a U-Net. To leave out one of its residual blocks is to put the identity in its place, "
        "with every skip connection whole: where an encoder block is gone, what entered it is handed over to the "
        "decoder; where a decoder block is gone, the tensor meant for it is merged all the same. What knows "
        f"transformers alone (the proxies, and the criteria {listed(TRANSFORMERS_ONLY)}) leaves it out."
    ]


def sentence(evidence: Evidence, backbone: str) -> str:
    choice = RegimeChoice.from_json(evidence.regime(backbone))
    how = (
        "the first to reach the required share"
        if choice.reached
        else "none reached the required share; this came nearest"
    )
    return f"{backbone}: {choice.size} blocks removed, {choice.regime.steps} steps of recovery ({how})."


def tried(evidence: Evidence) -> Table:
    rows = []
    for backbone in evidence.scope.backbones:
        for trial in RegimeChoice.from_json(evidence.regime(backbone)).trials:
            distances = [distance for row in trial.distances for distance in row]
            rows.append(
                [
                    backbone,
                    f"{trial.regime.ratio:.0%} ({len(trial.masks[0])} blocks), {trial.regime.steps} steps",
                    f"{len(trial.masks)} × {len(trial.distances[0])}",
                    f"{min(distances):.3g} – {max(distances):.3g}",
                    trial.share,
                ]
            )
    columns = {"backbone": "", "regime": "", "sets × recoveries": "", "distances": "", "share between sets": ".2f"}
    return Table("regime", "Regimes tried", columns, rows)
