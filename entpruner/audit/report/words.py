"""The one grammar of the report's sentences. It says nothing that the interval of a number does not bear out.

    subject  predicate: name number [interval], name number [interval] and name number [interval].

An interval on one side of the null value allows one of two predicates; an interval with the null value in it only
``cannot be told apart from``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entpruner.audit.statistics import Estimate

Verdict = Literal["above", "below", "open", "undefined"]


def verdict(estimate: Estimate | None, null: float = 0.0) -> Verdict:
    if estimate is None:
        return "undefined"
    if not estimate.excludes(null):
        return "open"
    return "above" if estimate.low > null else "below"


@dataclass(frozen=True)
class Wording:
    """The predicates for one kind of number."""

    above: str
    """For an interval above the null value."""
    below: str
    """For an interval below the null value."""
    nothing: str = ""
    """What a number cannot be told apart from if the null value lies in its interval; empty: the things named."""
    undefined: str = "not defined"
    """For a number that does not exist."""
    subject: str = ""
    null: float = 0.0

    def predicate(self, kind: Verdict) -> str:
        nothing = f"cannot be told apart from {self.nothing}".strip()
        said = {"above": self.above, "below": self.below, "open": nothing, "undefined": self.undefined}[kind]
        return f"{self.subject} {said}" if self.subject else said[0].upper() + said[1:]

    def of(self, estimates: Mapping[str, Estimate | None]) -> str:
        """One sentence for each verdict. It names all that the verdict holds for with their numbers, largest first."""
        known = [(name, estimate) for name, estimate in estimates.items() if estimate is not None]
        named: dict[Verdict, list[str]] = {"above": [], "below": [], "open": []}
        for name, estimate in sorted(known, key=lambda item: -item[1].value):
            named[verdict(estimate, self.null)].append(f"{name} {estimate:.2f}")
        named["undefined"] = [name for name, estimate in estimates.items() if estimate is None]
        return " ".join(f"{self.predicate(kind)}: {listed(names)}." for kind, names in named.items() if names)

    def finding(self, topic: str, estimates: Mapping[str, Estimate | None]) -> str:
        return f"**{topic}.** {self.of(estimates)}"


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
