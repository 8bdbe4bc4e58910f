"""Chapter 4: whether CED ranks the blocks in the same order with other draws, data, timesteps, and after training."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import Wording, listed
from entpruner.audit.statistics import Estimate, mean_over_seeds, spearman

METHOD = """\
Spearman's ρ between two rankings of the same blocks by CED, a number a seed (the mean over pairs of independent draws),
then the mean over seeds with Student's interval. `another draw`: the adapted network, other draws, as many. `other
seeds`: networks trained from other seeds, the study's number of draws; one number in all, the mean over pairs of seeds.
`before it moved`: the pre-trained network on the upstream data against the adapted one on the audit's.
`after fine-tuning`: the same network after the study's fine-tuning, unpruned. `timestep bin`: |entropy change| in
one bin of timesteps against CED over all of them; the first bin is next to the data."""
AGREES = Wording("agrees with the ranking as used", "ranks the other way round", "no agreement")


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Is CED's ranking stable?", METHOD)
    redrawn, seeds_apart = dict[str, Estimate | None](), []
    for backbone in evidence.scope.backbones:
        contents = evidence.by_seed("stability", backbone)
        usual = str(contents[0]["pretrained"][0]["draws"])  # the study's own number of draws
        of_seeds = [compared(content, usual) for content in contents]
        found = {name: mean_over_seeds([one[name] for one in of_seeds]) for name in of_seeds[0]}
        firsts = [content["draws"][usual][0]["value"] for content in contents]
        across = mean_rho(combinations(firsts, 2))
        redrawn[backbone] = found[f"another draw, N = {usual}"]
        seeds_apart.append(f"{backbone} {across:.2f}")
        chapter.findings.append(
            f"**{backbone}** ({len(contents)} seeds). {AGREES.of(found)} "
            f"Networks of other seeds rank {len(firsts[0])} blocks with ρ = {across:.2f} in the mean."
        )
        rows: list[tuple[Cell, ...]] = [*found.items(), ("other seeds", across)]
        caption = f"{backbone}: agreement of CED's rankings"
        chapter.tables.append(Table(f"stability_{backbone}", caption, {"against": "", "ρ": ".2f"}, rows))
    chapter.short += [
        AGREES.finding("CED's ranking, on other draws", redrawn),
        f"**CED's ranking, in networks of other seeds.** ρ in the mean: {listed(seeds_apart)}.",
    ]
    return chapter


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
