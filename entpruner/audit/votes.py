"""A vote counted anew from the proxies of its candidates: with other weights, another rule for ties, or by time.

The candidates of a vote are in the order in which they remove more: the first one stays, and the last one goes the
furthest. So they are told by their place, from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

from entpruner.params.proxies import Proxies
from entpruner.schedule import Decision, ranks


@dataclass(frozen=True)
class Way:
    """A way to count a vote: the weight of the rank by each metric, and what a tie does."""

    name: str
    ntk: float
    zico: float
    time: float = 0.0
    """The weight of the rank by time. All blocks are alike, so the fastest candidate is the one with the fewest."""
    tie: Literal["more", "fewer"] = "more"
    mean: bool = False
    """Whether ZiCo is the mean over layers, and not the sum."""

    def choose(self, kappas: Sequence[float | None], zicos: Sequence[float]) -> int:
        """The place of the candidate that wins. A κ of None, as of a rank-deficient network, ranks last."""
        by_ntk = ranks([float("inf") if kappa is None else kappa for kappa in kappas])
        by_zico = ranks([-zico for zico in zicos])
        by_time = range(len(kappas), 0, -1)
        scores = [
            self.ntk * n + self.zico * z + self.time * t for n, z, t in zip(by_ntk, by_zico, by_time, strict=True)
        ]
        best = [place for place, score in enumerate(scores) if score <= min(scores) + 1e-9]
        return best[-1] if self.tie == "more" else best[0]

    @property
    def other_tie(self) -> "Way":
        """The same with the other rule for ties."""
        return replace(self, name="with the other rule for ties", tie="fewer" if self.tie == "more" else "more")

    def fixed(self, candidates: int) -> int | None:
        """The place that wins whatever NTK says, where ZiCo prefers the deeper of two networks. None if NTK decides.

        ZiCo's mean does not prefer the deeper one as a rule, so nothing is fixed by it.
        """
        if self.mean and self.zico > 0:
            return None
        deeper_first = [float(-place) for place in range(candidates)]
        orders = permutations(map(float, range(1, candidates + 1)))
        outcomes = {self.choose(kappas, deeper_first) for kappas in orders}
        return outcomes.pop() if len(outcomes) == 1 else None


WITH_TIME = Way("with time, as AutoProg-Zero", 0.5, 0.5, time=1)
"""The vote of an earlier work of the authors. A tie goes to the fastest candidate."""


def as_cast(decision: Decision, proxies: Proxies) -> Way:
    """How the vote was counted when it was cast."""
    weights, mean = decision.weights, proxies.zico.reduction == "mean"
    return Way("as cast", weights["ntk"], weights["zico"], tie=decision.tie, mean=mean)


def ways(weights: Sequence[float]) -> list[Way]:
    """Other ways to count a vote than with equal weights. ``weights`` are NTK's; ZiCo has the rest of 1."""
    return [
        *(Way(f"NTK {weight:g}, ZiCo {1 - weight:g}", weight, 1 - weight) for weight in weights if weight != 0.5),
        Way("ZiCo as a mean over layers", 1, 1, mean=True),
        WITH_TIME,
    ]


def cast(decision: Decision) -> int:
    """The place of the candidate that was chosen."""
    return [candidate.removed for candidate in decision.candidates].index(decision.removed)


def counted(decision: Decision, way: Way) -> int:
    """The place that wins if the recorded proxies of a vote are counted in this way."""
    return way.choose([c.kappa for c in decision.candidates], zicos(decision))


def zicos(decision: Decision) -> list[float]:
    """ZiCo of each candidate of a vote."""
    return [candidate.zico for candidate in decision.candidates if candidate.zico is not None]


def prefers_deeper(zicos: Sequence[float]) -> bool:
    """Whether ZiCo ranks the candidates by their depth, the deepest first."""
    return list(ranks([-zico for zico in zicos])) == list(range(1, len(zicos) + 1))
