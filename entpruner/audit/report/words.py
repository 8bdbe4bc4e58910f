"""Numbers in plain sentences, by fixed rules: nothing is said that its interval does not bear out.

an interval above 0      "goes with"         (of a difference: "better"; of a ratio to chance, below 1: "better")
an interval below 0      "goes against"      ("worse")
an interval with 0 in it "cannot be told apart"
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from entpruner.audit.statistics import Estimate

Verdict = Literal["above", "below", "open", "undefined"]


def verdict(estimate: Estimate | None, null: float = 0.0) -> Verdict:
    if estimate is None:
        return "undefined"
    if not estimate.excludes(null):
        return "open"
    return "above" if estimate.low > null else "below"


def number(estimate: Estimate, form: str = ".2f") -> str:
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def sorted_out(
    estimates: Mapping[str, Estimate | None], phrases: Mapping[Verdict, str], null: float = 0.0, form: str = ".2f"
) -> str:
    """One sentence a verdict, each naming all that it holds for, with their numbers, the largest first."""
    known = sorted(
        ((name, estimate) for name, estimate in estimates.items() if estimate is not None),
        key=lambda item: -item[1].value,
    )
    sentences = []
    for kind in ("above", "below", "open"):
        named = [f"{name} {number(estimate, form)}" for name, estimate in known if verdict(estimate, null) == kind]
        if named:
            sentences.append(f"{phrases[kind]}: {listed(named)}.")
    if undefined := [name for name, estimate in estimates.items() if estimate is None]:
        sentences.append(f"{phrases['undefined']}: {listed(undefined)}.")
    return " ".join(sentences)


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
