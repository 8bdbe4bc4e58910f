"""The sentences of the report. All have this form, and none says more than the interval of its number allows:

    subject predicate: name number [interval], name number [interval] and name number [interval].

The predicate depends on the interval alone. An interval above the null value has one predicate, and an interval below
it has another. If the interval contains the null value, the predicate is ``cannot be told apart from``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entpruner.audit.statistics import Estimate
from entpruner.reporting.words import spoken

Verdict = Literal["above", "below", "open", "undefined"]


def verdict(estimate: Estimate | None, null: float = 0.0) -> Verdict:
    """Where the interval lies: above the null value, below it, or open if the interval contains it."""
    if estimate is None:
        return "undefined"
    if not estimate.excludes(null):
        return "open"
    return "above" if estimate.low > null else "below"


@dataclass(frozen=True)
class Wording:
    """The predicates of one kind of number."""

    above: str
    """The predicate if the interval lies above the null value."""
    below: str
    """The predicate if the interval lies below the null value."""
    nothing: str = ""
    """What a number cannot be told apart from if its interval contains the null value. Empty: the following names."""
    undefined: str = "not defined"
    """The predicate if there is no number."""
    subject: str = ""
    """The subject of all sentences. If it is empty, a sentence begins with its predicate."""
    null: float = 0.0

    def predicate(self, kind: Verdict) -> str:
        nothing = f"cannot be told apart from {self.nothing}".strip()
        said = {"above": self.above, "below": self.below, "open": nothing, "undefined": self.undefined}[kind]
        return f"{self.subject} {said}" if self.subject else said[0].upper() + said[1:]

    def of(self, estimates: Mapping[str, Estimate | None]) -> str:
        """One sentence for each verdict, with the names and numbers that the verdict applies to, the largest first."""
        known = [(name, estimate) for name, estimate in estimates.items() if estimate is not None]
        named: dict[Verdict, list[str]] = {"above": [], "below": [], "open": []}
        for name, estimate in sorted(known, key=lambda item: -item[1].value):
            named[verdict(estimate, self.null)].append(f"{name} {estimate:.2f}")
        named["undefined"] = [name for name, estimate in estimates.items() if estimate is None]
        return " ".join(f"{self.predicate(kind)}: {listed(names)}." for kind, names in named.items() if names)

    def finding(self, topic: str, estimates: Mapping[str, Estimate | None]) -> str:
        """The sentences of ``of``, behind a topic in bold type."""
        return f"**{topic}.** {self.of(estimates)}"


def in_words(estimates: Mapping[str, Estimate | None]) -> dict[str, Estimate | None]:
    """The estimates by the names that people read, such as DiT instead of dit."""
    return {spoken(name): estimate for name, estimate in estimates.items()}


def listed(names: Sequence[str]) -> str:
    """The names as an English list: ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
