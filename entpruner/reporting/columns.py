"""The measured columns of a table: where each number comes from, how it is printed, and the notes that explain it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from entpruner.evaluation.intervals import POSITIVE, SHARE, UNBOUNDED, Bounds, bounded_interval
from entpruner.params.reporting import ColumnName
from entpruner.reporting.results import ArmResult

OWN, ALL = ("training",), ("training", "adaptation")
"""The documents with the training of an arm: its own alone, or together with the adaptation before it."""
SINCE_PRE_TRAINING = (
    "Steps, training, training time: since pre-training, so with the adaptation to the data that an arm begins with; a "
    "multiply-accumulate is two operations."
)
READINGS = (
    "First and last κ and ZiCo: of the whole network, at the first and at the last reading of the arm's own training."
)
WALL_TIME = "Training time is wall time: it depends on the machine, and on what else that was doing."

Rule = Literal["exact", "relative", "absolute", "ratio of times", "time"]
"""How a repetition of a number is judged: by equality, by the difference between processors relative to the value or in
absolute terms, by the quartiles of a speed-up, or, for a time, not at all."""


@dataclass(frozen=True)
class Column:
    """A measured column.

    Its heading and notes may contain ``{distance}`` and ``{score}``, what the Fréchet distance and the formula of the
    Inception Score are called. Its keys may contain ``{fd}`` for the metric of the distance, ``{on}`` for the suffix
    that names the feature net (empty for InceptionV3), and ``{network}``, the key of the network in the cost document.
    """

    heading: str
    """An arrow at its end says which numbers are better: ↑ the larger ones, ↓ the smaller ones."""
    key: str
    """The dotted key of the number in its documents."""
    documents: tuple[str, ...] = ("metrics",)
    """The names of the documents with the key. The numbers of all documents that an arm has are added up."""
    quartiles: str | None = None
    """The dotted key of the lower and upper quartile, if there are some."""
    unit: str | None = None
    """The unit that gets an SI prefix. It is empty for a count, and None for a number that is shown as it is."""
    per_seed: bool = True
    """False for a number that has no spread over seeds, because it belongs to the backbone or to the settings."""
    notes: tuple[str, ...] = ()
    """Texts that are shown below the table."""
    rule: Rule = "relative"
    bounds: Bounds = POSITIVE
    """The smallest and the largest value of the number, within which its interval stays."""


COLUMNS: dict[ColumnName, Column] = {
    "distance_before": Column(
        "before recovery ↓",
        "{fd}",
        ("cut",),
        notes=("Before recovery: the distance right after the last cut, before any training; – if nothing is cut.",),
    ),
    "distance": Column("{distance} ↓", "{fd}", notes=("{distance}: Fréchet distance, after all training.",)),
    "motion": Column(
        "motion ↓", "fd_motion", notes=("Motion: Fréchet distance between the differences of the frames of clips.",)
    ),
    "over_floor": Column(
        "× floor ↓",
        "{fd}_ratio",
        notes=(
            "× floor: the distance to one half of the real data, over the distance of its other half to that half.",
        ),
    ),
    "inception_score": Column(
        "{score} ↑",
        "is{on}",
        notes=("{score}: the formula of the Inception Score, from 1 to the number of the net's classes.",),
        bounds=(1.0, math.inf),
    ),
    "kid": Column("KID ↓", "kid{on}", rule="absolute", bounds=UNBOUNDED),  # it is unbiased, so it can be about zero
    "precision": Column("precision ↑", "precision{on}", rule="absolute", bounds=SHARE),
    "recall": Column("recall ↑", "recall{on}", rule="absolute", bounds=SHARE),
    "agreement": Column(
        "agreement ↑",
        "agreement",
        notes=("Agreement: share of images that the study's own classifier puts in the class asked for.",),
        rule="absolute",
        bounds=SHARE,
    ),
    "trained_parameters": Column(
        "trained parameters",
        "trained_parameters",
        OWN,
        unit="",
        per_seed=False,
        notes=("Trained parameters: in the arm's own training, not in the adaptation before it.",),
        rule="exact",
    ),
    "parameters": Column("parameters", "blocks.{network}.parameters", ("cost",), unit="", per_seed=False, rule="exact"),
    "macs": Column("MACs", "blocks.{network}.macs", ("cost",), unit="", per_seed=False, rule="exact"),
    "speedup": Column(
        "speed-up ↑",
        "blocks.{network}.speedup",
        ("cost",),
        quartiles="blocks.{network}.speedup_quartiles",
        per_seed=False,
        notes=("Speed-up: measured latency of the unpruned network over the row's, median and [quartiles] of pairs.",),
        rule="ratio of times",
    ),
    "steps": Column("steps", "total_steps", ALL, per_seed=False, notes=(SINCE_PRE_TRAINING,), rule="exact"),
    # The FLOPs are not exact: if a vote decides differently, a network of another size is trained.
    "training_flops": Column("training", "total_flops", ALL, unit="FLOP", notes=(SINCE_PRE_TRAINING,)),
    "training_seconds": Column(
        "training time (s)", "total_seconds", ALL, notes=(SINCE_PRE_TRAINING, WALL_TIME), rule="time"
    ),
    "kappa_first": Column("κ, first", "monitor.first.kappa", OWN, notes=(READINGS,)),
    "kappa_last": Column("κ, last", "monitor.last.kappa", OWN, notes=(READINGS,)),
    "zico_first": Column("ZiCo, first", "monitor.first.zico", OWN, notes=(READINGS,)),
    "zico_last": Column("ZiCo, last", "monitor.last.zico", OWN, notes=(READINGS,)),
    "votes": Column(
        "votes to prune",
        "monitor.pruned",
        OWN,
        notes=("Votes to prune: the share of the readings with a choice whose vote would have removed blocks.",),
        rule="absolute",
        bounds=SHARE,
    ),
    "monitoring": Column(
        "monitoring",
        "monitor.share",
        OWN,
        notes=("Monitoring: the share of the arm's time that the readings took.",),
        rule="time",
        bounds=SHARE,
    ),
}

RULES: dict[str, Rule] = {"blocks": "exact", **{name: column.rule for name, column in COLUMNS.items()}}
"""The name of a column -> how its numbers are judged."""


@dataclass(frozen=True)
class Cell:
    """A measured number of a row, and where it comes from."""

    value: int | float | None
    """The mean over the seeds. None if it was not measured."""
    std: float | None = None
    """The sample standard deviation over the seeds. None for one seed."""
    interval: tuple[float, float] | None = None
    """The ends of the 95 % interval of the mean, which stay within the bounds of the column. None for one seed."""
    quartiles: tuple[float, ...] | None = None
    """The lower and the upper quartile, if the column has them."""
    sources: tuple[dict[str, str], ...] = ()
    """For each seed and document: the folder of the arm, the file, and the dotted key in it."""

    def is_better(self, other: "Cell", sign: int) -> bool:
        """Whether the whole interval of this cell lies above that of the other (sign 1), or below it (sign -1).

        It is not if a number or an interval is missing.
        """
        if self.interval is None or other.interval is None:
            return False
        return self.interval[0] > other.interval[1] if sign > 0 else self.interval[1] < other.interval[0]

    def short(self) -> str:
        """The value alone, with two significant digits, or one decimal from 1 to 100."""
        if self.value is None:
            return "–"
        return f"{self.value:.1f}" if 1 <= abs(self.value) < 100 else f"{self.value:.2g}"

    def text(self, factor: float = 1) -> str:
        """The cell as text, divided by ``factor``: the mean with three significant digits, or a count with all digits.

        The ends of an interval have as many decimals as the mean.
        """
        if self.value is None:
            return "–"
        if isinstance(self.value, int) and factor == 1:
            return str(self.value)
        value = self.value / factor
        decimals = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        if self.quartiles is not None:
            low, high = (quartile / factor for quartile in self.quartiles)
            return f"{value:.2f} [{low:.2f}, {high:.2f}]"
        shown = f"{value:.{decimals}f}"
        if self.interval is None:
            return shown
        low, high = (end / factor for end in self.interval)
        return f"{shown} [{low:.{decimals}f}, {high:.{decimals}f}]"


def words(distance: str) -> dict[str, str]:
    """What the distance and the score are called in headings and notes: FID and IS on InceptionV3 alone."""
    return {"distance": "FID", "score": "IS"} if distance == "fid" else {"distance": "distance", "score": "score"}


def measure(column: Column, seeds: Sequence[ArmResult], distance: str) -> Cell:
    """The cell of a column: the mean over the seeds. It is empty if the number of a seed is missing."""
    values, sources, quartiles = [], [], None
    for arm in seeds:
        on = "" if distance == "fid" else distance.removeprefix("fd")
        names = {"fd": distance, "on": on, "network": arm.network}
        key = column.key.format(**names)
        documents = [arm.documents[name] for name in column.documents if name in arm.documents]
        parts = [document.value(key) for document in documents]
        if not parts or None in parts:
            return Cell(None)
        if column.quartiles is not None:
            quartiles = tuple(documents[0].value(column.quartiles.format(**names)))
        values.append(sum(parts))
        sources += [{"arm": arm.artefact, "file": document.path, "key": key} for document in documents]
    if not column.per_seed or len(values) < 2:
        return Cell(mean(values), quartiles=quartiles, sources=tuple(sources))
    ends = bounded_interval(values, bounds_of(column, seeds[0], distance))
    return Cell(mean(values), stdev(values), ends, quartiles, tuple(sources))


def bounds_of(column: Column, arm: ArmResult, distance: str) -> Bounds:
    """The bounds of a column. The score by the study's own classifier is at most the number of its classes."""
    low, high = column.bounds
    return (low, float(arm.classes)) if column.key == "is{on}" and distance == "fd_classifier" else (low, high)


def si_prefix(values: Iterable[float | None]) -> tuple[float, str]:
    """The factor and the SI prefix with which the largest value has one to three digits before the decimal point."""
    largest = max((abs(value) for value in values if value is not None), default=0)
    power = min(max(int(math.log10(largest)) // 3, 0), 6) if largest > 0 else 0
    return 1000.0**power, ("", "k", "M", "G", "T", "P", "E")[power]
