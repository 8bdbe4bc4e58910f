"""Chapter 5: whether CED ranks the blocks in the same order with other draws, data, timesteps, and after training; and
whether networks of other seeds are ranked in the same order, by CED and by every other criterion."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np

from entpruner.audit.criteria import Values
from entpruner.audit.report.chapter_criteria import OURS, Measurements
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import Wording, in_words, listed
from entpruner.audit.statistics import (
    Bootstrapped,
    Estimate,
    Resamples,
    bootstrap,
    holm,
    mean_agreement,
    mean_over_seeds,
    spearman,
    told_apart,
)
from entpruner.evaluation.intervals import CORRELATION
from entpruner.reporting.words import spoken

METHOD = """\
Spearman's ρ between two rankings of the same blocks. First by CED in one network, a number a seed (the mean over pairs
of independent draws), then the mean over seeds with Student's interval on Fisher's z. `another draw`: the adapted
network, other draws, as many. `before it moved`: the pre-trained network on the upstream data against the adapted one
on the audit's. `after fine-tuning`: the same network after the study's fine-tuning, unpruned. `timestep bin`: |entropy
change| in one bin of timesteps against CED over all of them; the first bin is next to the data.

Then by every criterion in networks trained from other seeds: the mean over pairs of seeds, with the smallest and the
largest pair. The interval there is a bootstrap over the blocks of these networks, so that it does not say how far the
number would move with other networks. `minus`: of CED and the criterion, the same blocks drawn for both; `p` is
corrected for all rows by Holm's method."""
AGREES = Wording("agrees with the ranking as used", "ranks the other way round", "no agreement")
ACROSS = Wording(
    "ranks networks of other seeds alike", "ranks networks of other seeds the other way round", "no agreement"
)


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Is CED's ranking stable, and are its rivals'?", METHOD)
    redrawn, ours, steadier = dict[str, Estimate | None](), dict[str, Estimate | None](), list[str]()
    forests: dict[str, dict[str, Estimate | None]] = {}
    for backbone in evidence.scope.backbones:
        contents = evidence.by_seed("stability", backbone)
        usual = str(contents[0]["pretrained"][0]["draws"])  # the study's own number of draws
        of_seeds = [compared(content, usual) for content in contents]
        found = {name: mean_over_seeds([one[name] for one in of_seeds], CORRELATION) for name in of_seeds[0]}
        redrawn[backbone] = found[f"another draw, N = {usual}"]
        chapter.findings.append(f"**{backbone}** ({len(contents)} seeds). {AGREES.of(found)}")
        caption = f"{backbone}: agreement of CED's rankings"
        rows: list[tuple[Cell, ...]] = [*found.items()]
        chapter.tables.append(Table(f"stability_{backbone}", caption, {"against": "", "ρ": ".2f"}, rows))
        values = Measurements.read(evidence, backbone).values
        across = across_seeds(values, backbone)
        estimates = {name: one.estimate() for name, one in across.items()}
        ours |= {backbone: estimates[OURS]} if OURS in estimates else {}
        chapter.findings.append(ACROSS.finding(f"{backbone}, networks of other seeds", estimates))
        differences = {name: across[OURS] - one for name, one in across.items() if name != OURS and OURS in across}
        chapter.tables.append(across_table(backbone, values, across, differences))
        alike = [spoken(name) for name in told_apart(differences) if differences[name].value < 0]
        steadier.append(f"{spoken(backbone)}: {listed(alike or ['none'])}")
        for name, estimate in estimates.items():
            forests.setdefault(spoken(name), {})[spoken(backbone)] = estimate
    if forests:
        caption = "Agreement of a criterion's rankings between networks that were trained from other seeds"
        panel = {"between networks of other seeds": forests}
        chapter.figures["stability"] = (caption, partial(forest, panel, "Spearman's ρ, mean over pairs of seeds"))
    chapter.short.append(AGREES.finding("CED's ranking, on other draws", in_words(redrawn)))
    if ours:
        chapter.short.append(ACROSS.finding("CED, in networks of other seeds", in_words(ours)))
        chapter.short.append(f"**Alike more than by CED**, after correction for all criteria. {'; '.join(steadier)}.")
    return chapter


def across_seeds(criteria: Mapping[str, Sequence[Values]], backbone: str) -> dict[str, Bootstrapped]:
    """Criterion -> the mean over pairs of seeds of the correlation of its values, bootstrapped over blocks."""
    found = {}
    for name, by_seed in criteria.items():
        values = tuple(np.array([of_seed[block] for block in sorted(of_seed)]) for of_seed in by_seed)
        resamples = Resamples.draw([len(values[0])], "audit", "seeds", backbone)
        found[name] = bootstrap([values], mean_agreement, resamples)
    return found


def across_table(
    backbone: str,
    criteria: Mapping[str, Sequence[Values]],
    across: Mapping[str, Bootstrapped],
    differences: Mapping[str, Bootstrapped],
) -> Table:
    """The agreement of every criterion, and its difference to that of CED with the corrected p-value."""
    corrected = holm({name: one.chance() for name, one in differences.items()})
    rows = list[list[Cell]]()
    for name, one in across.items():
        by_seed = [[of_seed[block] for block in sorted(of_seed)] for of_seed in criteria[name]]
        pairs = [mean_rho([pair]) for pair in combinations(by_seed, 2)]
        difference = differences[name].estimate() if name in differences else None
        rows.append([name, one.estimate(), min(pairs), max(pairs), difference, corrected.get(name)])
    columns = {
        "criterion": "", "ρ": ".2f", "smallest pair": ".2f", "largest pair": ".2f", f"{OURS} minus criterion": ".2f",
        "p, corrected": ".2f",
    }  # fmt: skip
    return Table(f"stability_{backbone}_seeds", f"{backbone}: agreement of networks of other seeds", columns, rows)


def compared(content: Mapping[str, Any], usual: str) -> dict[str, float]:
    """The correlations of one seed: the name of a comparison -> the mean of Spearman's ρ over its pairs of rankings.

    ``usual`` is the study's own number of draws, a key of ``content["draws"]``.
    """
    redrawn = {draws: values(scores) for draws, scores in content["draws"].items()}
    found = {f"another draw, N = {draws}": mean_rho(combinations(drawn, 2)) for draws, drawn in redrawn.items()}
    for name, key in (("before it moved", "pretrained"), ("after fine-tuning", "finetuned")):
        found[name] = mean_rho(product(redrawn[usual], values(content[key])))
    first = content["draws"][usual][0]
    bins = np.abs(np.array(first["per_timestep"], dtype=float)).T  # (bins, L)
    for number, changes in enumerate(bins, start=1):
        found[f"timestep bin {number} of {len(bins)}"] = mean_rho([(first["value"], changes)])
    return found


def values(rankings: Sequence[Any]) -> list[Sequence[float]]:
    return [scores["value"] for scores in rankings]


def mean_rho(pairs: Iterable[tuple[Any, Any]]) -> float:
    return float(np.mean([spearman(np.array(a), np.array(b)) for a, b in pairs]))
