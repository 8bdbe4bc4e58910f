"""Chapter 6: the vote taken apart. How often other samples of the proxies would have cast it in the same way, what
other ways to count it would have done, and for which of these the outcome never depends on the data."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import listed
from entpruner.audit.stages import Vote
from entpruner.audit.statistics import Estimate, mean_over_seeds
from entpruner.audit.votes import WITH_TIME, Way, as_cast, cast, counted, prefers_deeper, ways, zicos
from entpruner.evaluation.intervals import SHARE
from entpruner.params.proxies import Proxies
from entpruner.reporting.figures import COLOURS, drawing, legend_below, panels
from entpruner.reporting.words import sentence, spoken
from entpruner.rules.audit import REDRAWS
from entpruner.schedule import Decision

METHOD = f"""\
The study's own pruning by CED and the vote, at the audit's ratio of the paper: at each of its votes the proxies of all
candidates were measured again on {REDRAWS} independent draws of their samples, the same for all candidates. `as cast`:
the share of draws on which the outcome is that of the vote as it was cast; `stays`: on which no block goes; `as
linear`: on which as many blocks are gone as even steps would have taken by then (both can be true at once). Shares:
means over the votes of a seed, then over seeds with Student's interval on the log odds.

Each way to count is applied to every vote by itself, as it stood: what a run would have come to if its earlier votes
had gone another way is not known. `with time, as AutoProg-Zero`: ranks by time, of the weight 1, and by each proxy, of
1/2; all blocks are alike, so the candidate with the fewest blocks is the fastest. `fixed`: the outcome of a vote among
three candidates for every order in which NTK could rank them, where ZiCo ranks them by depth; – where NTK decides.

`recorded`: votes as their runs recorded them, the study's and those of part 4 at equal steps and equal weights.
`deeper first`: votes in which ZiCo ranks the candidates by depth."""
OUTCOMES = "stays", "one step", "two steps", "three steps", "four steps"
CANDIDATES = 3
"""The number of candidates of a vote that looks two steps ahead."""

Outcomes = Mapping[str, tuple[int, Counter[int]]]
"""The name of a vote -> the place of the candidate that was cast, and how many draws chose each place."""


@dataclass(frozen=True)
class Cast:
    """The votes of a backbone that were cast again."""

    backbone: str
    seeds: Mapping[int, Sequence[Vote]]
    usual: Way
    """How they were counted when they were cast."""

    @staticmethod
    def read(evidence: Evidence, backbone: str) -> "Cast | None":
        """Read the votes of a backbone. Returns None if none of its arms was followed, or if no vote had a choice."""
        followed = evidence.followed(backbone)
        seeds = {one.arm.seed: tuple(map(Vote.model_validate, content["votes"])) for one, content in followed}
        seeds = {seed: votes for seed, votes in seeds.items() if votes}
        if not seeds:
            return None
        proxies = Proxies.model_validate(followed[0][1]["timing"]["settings"]["proxies"])
        return Cast(backbone, seeds, as_cast(next(iter(seeds.values()))[0].decision, proxies))

    @property
    def votes(self) -> list[Vote]:
        return [vote for votes in self.seeds.values() for vote in votes]

    @property
    def decisions(self) -> list[Decision]:
        return [vote.decision for vote in self.votes]

    def again(self, way: Way) -> Estimate | float:
        """The share of draws on which the outcome is that which was cast, if the votes are counted in this way."""
        return shares(way, self.seeds.values(), cast)

    def outcomes(self) -> Outcomes:
        return {
            f"seed {seed}, stage {vote.decision.stage}": (cast(vote.decision), Counter(vote.choices(self.usual)))
            for seed, votes in self.seeds.items()
            for vote in votes
        }


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Is the vote decided, or drawn by lot?", METHOD)
    found = [votes for votes in (Cast.read(evidence, name) for name in evidence.scope.proxied) if votes]
    if not found:
        return chapter
    others = ways(evidence.scope.weights)
    for one in found:
        again, other = one.again(one.usual), one.again(one.usual.other_tie)
        chapter.findings += [
            f"**{one.backbone}, the same votes on other samples** ({len(one.seeds)} seeds, {len(one.votes)} votes). "
            f"The outcome that was cast comes again on a share of {again:.2f} of the draws, and would on {other:.2f} "
            "with the other rule for ties.",
            f"**{one.backbone}, the votes as they were cast.** {sentence(of_decisions(one.decisions, one.usual))}.",
        ]
        chapter.tables += [
            ways_table(one, [one.usual, one.usual.other_tie, *others]),
            votes_table(one),
            recorded_table(one, recorded(evidence, one)),
        ]
    caption = f"Outcomes of each vote on {REDRAWS} draws of the proxies' samples; the cross marks what was cast"
    chapter.figures["votes"] = (caption, partial(draw, {spoken(one.backbone): one.outcomes() for one in found}))
    again_by_name = listed([f"{spoken(one.backbone)} {one.again(one.usual):.2f}" for one in found])
    did = "; ".join(f"{spoken(one.backbone)}: {of_decisions(one.decisions, one.usual)}" for one in found)
    chapter.short = [
        f"**The same vote, on other samples of its proxies**, ends as it did in a share of {again_by_name}.",
        f"**What the votes did.** {did}.",
    ]
    if fixed := [way.name for way in others if way.fixed(CANDIDATES) is not None]:
        deeper = [ranked for one in found for vote in one.votes for ranked in ranks_by_depth(vote)]
        said = (
            f"**Fixed by construction**, whatever NTK says, where ZiCo ranks by depth (it did on {sum(deeper)} of "
            f"{len(deeper)} draws): the vote with {listed(fixed)}."
        )
        chapter.short.append(said)
        chapter.findings.append(said)
    return chapter


def shares(way: Way, seeds: Iterable[Sequence[Vote]], place: Callable[[Decision], int | None]) -> Estimate | float:
    """The share of draws on which the candidate at a place wins: the mean over votes, and then over seeds."""
    by_seed = []
    for votes in seeds:
        by_seed.append(fmean(chosen == place(vote.decision) for vote in votes for chosen in vote.choices(way)))
    return mean_over_seeds(by_seed, SHARE) or by_seed[0]


def ranks_by_depth(vote: Vote) -> list[bool]:
    """Whether ZiCo's sum ranks the candidates by their depth, on each draw."""
    drawn = zip(*(candidate.draws for candidate in vote.candidates), strict=True)
    return [prefers_deeper([one.zico_sum for one in draws]) for draws in drawn]


def stay(decision: Decision) -> int | None:
    """The place of the candidate that removes nothing. None if there is none."""
    return place_of(decision, decision.removed_before)


def even(decision: Decision) -> int | None:
    """The place of the candidate that even steps would have come to by this stage. None if there is none."""
    return place_of(decision, decision.grid[decision.stage])


def place_of(decision: Decision, removed: int) -> int | None:
    counts = [candidate.removed for candidate in decision.candidates]
    return counts.index(removed) if removed in counts else None


def of_decisions(decisions: Sequence[Decision], usual: Way) -> str:
    """A sentence on what these votes did, without its full stop."""
    stays, linear = (sum(cast(one) == where(one) for one in decisions) for where in (stay, even))
    ties, moved = sum(one.tied for one in decisions), moves(decisions, usual.other_tie)
    return (
        f"of {len(decisions)} votes {stays} stayed and {linear} did what even steps would have done; {ties} tied, and "
        f"{moved} would have gone another way with the other rule for ties"
    )


def moves(decisions: Sequence[Decision], way: Way) -> int:
    """The number of votes that end otherwise if they are counted in this way."""
    return sum(counted(one, way) != cast(one) for one in decisions)


def recorded(evidence: Evidence, found: Cast) -> dict[str, list[Decision]]:
    """The votes by where they were cast: in the study, and in both regimes of part 4."""
    sources = {"the study": found.decisions}
    contents = evidence.by_seed("schedules", found.backbone)
    for regime, what in (("paper", "part 4, the paper's ratio"), ("hard", "part 4, the audit's regime")):
        runs = [run for content in contents for run in content[regime]["schedules"]]
        chosen = [run for run in runs if (run["schedule"], run["budget"]) == ("vote", "steps")]
        decisions = [Decision.model_validate(decision) for run in chosen for decision in run["decisions"]]
        sources[what] = [decision for decision in decisions if decision.how == "vote"]
    return {where: decisions for where, decisions in sources.items() if decisions}


def recorded_table(found: Cast, sources: Mapping[str, Sequence[Decision]]) -> Table:
    columns = {
        "votes of": "", "votes": "d", "deeper first": "d", "tied": "d", "stays": "d", "as linear": "d",
        "other with the other tie": "d", "other with time": "d",
    }  # fmt: skip
    rows = list[list[Cell]]()
    for where, decisions in sources.items():
        deeper = sum(prefers_deeper(zicos(one)) for one in decisions)
        ties = sum(one.tied for one in decisions)
        stays, linear = (sum(cast(one) == place(one) for one in decisions) for place in (stay, even))
        moved = [moves(decisions, way) for way in (found.usual.other_tie, WITH_TIME)]
        rows.append([where, len(decisions), deeper, ties, stays, linear, *moved])
    caption = f"{found.backbone}: votes as they were recorded"
    return Table(f"votes_{found.backbone}_recorded", caption, columns, rows)


def ways_table(found: Cast, asked: Sequence[Way]) -> Table:
    columns = {"counted": "", "fixed": "", "as cast": ".2f", "stays": ".2f", "as linear": ".2f"}
    rows = list[list[Cell]]()
    for way in asked:
        place = way.fixed(CANDIDATES)
        counts = [shares(way, found.seeds.values(), where) for where in (cast, stay, even)]
        rows.append([way.name, "–" if place is None else OUTCOMES[place], *counts])
    caption = f"{found.backbone}: the votes on {REDRAWS} draws, counted in several ways"
    return Table(f"votes_{found.backbone}_ways", caption, columns, rows)


def votes_table(found: Cast) -> Table:
    """A row for each vote: how many of the draws choose each candidate, and what was cast."""
    columns = {"seed": "d", "stage": "d", "cast": "d", "blocks removed: draws": "", "comes again": ".2f"}
    rows = list[list[Cell]]()
    for seed, votes in found.seeds.items():
        for vote in votes:
            decision, chosen = vote.decision, Counter(vote.choices(found.usual))
            counts = ", ".join(f"{one.removed}: {chosen[place]}" for place, one in enumerate(decision.candidates))
            again = chosen[cast(decision)] / chosen.total()
            rows.append([seed, decision.stage, decision.removed, counts, again])
    return Table(f"votes_{found.backbone}", f"{found.backbone}: each vote on {REDRAWS} draws", columns, rows)


def draw(shown: Mapping[str, Outcomes], target: Path) -> None:
    """Draw a bar for each vote, with the share of draws of each outcome. The outcome that was cast has a cross."""
    most, used = max(map(len, shown.values())), 0
    with drawing(target, 3.6 * len(shown) + 1.4, 0.26 * most + 1.4) as figure:
        for title, (axes,) in panels(figure, shown).items():
            for row, (was_cast, chosen) in enumerate(shown[title].values()):
                used, left = max(used, was_cast + 1, *(place + 1 for place in chosen)), 0.0
                for place in range(used):
                    share = chosen[place] / chosen.total()
                    axes.barh(row, share, left=left, color=COLOURS[place])
                    if place == was_cast:
                        axes.plot([left + share / 2], [row], marker="x", color="black", markersize=5)
                    left += share
            axes.set_yticks(range(len(shown[title])), list(shown[title]))
            axes.set(xlim=(0, 1), xlabel="share of draws")
            axes.grid(axis="y", visible=False)
            axes.invert_yaxis()
        styles = {name: {"color": colour, "linewidth": 6} for name, colour in zip(OUTCOMES, COLOURS, strict=False)}
        legend_below(figure, dict(list(styles.items())[:used]), columns=used)
