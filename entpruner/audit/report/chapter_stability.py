"""Part 4: does CED rank the blocks the same way on other draws, other data, other timesteps, after training?"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Cell, Part, Table
from entpruner.audit.report.words import Verdict, listed, sorted_out
from entpruner.audit.statistics import Estimate, mean_over_seeds, spearman
from entpruner.scores import Scores

METHOD = """\
Spearman's ρ between two rankings of the same blocks by CED, a number a seed (the mean over pairs of independent draws),
then the mean over seeds with Student's interval. `another draw`: the adapted network, other draws, as many. `other
seeds`: networks trained from other seeds, the study's number of draws; one number in all, the mean over pairs of seeds.
`before it moved`: the pre-trained network on the upstream data against the adapted one on the audit's.
`after fine-tuning`: the same network after the study's fine-tuning, unpruned. `timestep bin`: |entropy change| in
one bin of timesteps against CED over all of them; the first bin is next to the data."""
AGREES: dict[Verdict, str] = {
    "above": "Agrees with the ranking as used",
    "below": "Ranks the other way round",
    "open": "Cannot be told apart from no agreement",
    "undefined": "Not defined",
}

Ranking = tuple[float, ...]


def part(evidence: Evidence) -> Part:
    findings, tables, seeds_apart = [], [], []
    redrawn = dict[str, Estimate | None]()
    for backbone in evidence.scope.backbones:
        contents = evidence.by_seed("stability", backbone)
        found = compared(contents)
        across = other_seeds(contents)
        redrawn[backbone] = found[another_draw(usual(contents[0])[0].draws)]
        seeds_apart.append(f"{backbone} {across:.2f}")
        findings.append(
            f"**{backbone}** ({len(contents)} seeds). {sorted_out(found, AGREES)} "
            f"Networks of other seeds rank {len(usual(contents[0])[0].value)} blocks with ρ = {across:.2f} in the mean."
        )
        rows: list[list[Cell]] = [[name, estimate] for name, estimate in found.items()]
        rows.append(["other seeds", across])
        caption = f"{backbone}: agreement of CED's rankings"
        tables.append(Table(f"stability_{backbone}", caption, {"against": "", "ρ": ".2f"}, rows))
    short = [
        f"**CED's ranking, on other draws.** {sorted_out(redrawn, AGREES)}",
        f"**CED's ranking, in networks of other seeds.** ρ in the mean: {listed(seeds_apart)}.",
    ]
    return Part("Is CED's ranking stable?", METHOD, findings, tables, short=short)


def compared(contents: Sequence[Any]) -> dict[str, Estimate | None]:
    """What is held against the ranking as used -> the mean over seeds."""
    by_name: dict[str, list[float]] = {}
    for content in contents:
        for name, rho in of_seed(content).items():
            by_name.setdefault(name, []).append(rho)
    return {name: mean_over_seeds(values) for name, values in by_name.items()}


def of_seed(content: Mapping[str, Any]) -> dict[str, float]:
    as_used = values(usual(content))
    found = {
        another_draw(draws): mean_rho(combinations(values(map(Scores.from_json, rankings)), 2))
        for draws, rankings in content["draws"].items()
    }
    for name, key in (("before it moved", "pretrained"), ("after fine-tuning", "finetuned")):
        found[name] = mean_rho(product(as_used, values(map(Scores.from_json, content[key]))))
    first = usual(content)[0]
    assert first.per_timestep is not None, "CED always fills it"
    bins = np.abs(np.array(first.per_timestep, dtype=float)).T  # (bins, L)
    for number, changes in enumerate(bins, start=1):
        found[f"timestep bin {number} of {len(bins)}"] = float(spearman(np.array(first.value), changes))
    return found


def another_draw(draws: int | str) -> str:
    return f"another draw, N = {draws}"


def usual(content: Mapping[str, Any]) -> list[Scores]:
    """The adapted network's rankings with the study's own number of draws."""
    draws = content["pretrained"][0]["draws"]
    return [Scores.from_json(scores) for scores in content["draws"][str(draws)]]


def values(scores: Any) -> list[Ranking]:
    return [one.value for one in scores]


def mean_rho(pairs: Any) -> float:
    return float(np.mean([spearman(np.array(a), np.array(b)) for a, b in pairs]))


def other_seeds(contents: Sequence[Any]) -> float:
    """Mean over pairs of seeds, of each seed's first ranking."""
    return mean_rho(combinations([usual(content)[0].value for content in contents], 2))
