"""The measured columns of a table: where each number comes from, how it is printed, and what must be said of it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from entpruner.evaluation.intervals import t_interval
from entpruner.params.reporting import ColumnName
from entpruner.reporting.results import ArmResult

OWN, ALL = ("training",), ("training", "adaptation")
SINCE_PRE_TRAINING = (
    "Steps, training, training time: since pre-training, so with the adaptation to the data that an arm begins with; a "
    "multiply-accumulate is two operations."
)
WALL_TIME = "Training time is wall time: it depends on the machine, and on what else that was doing."


Rule = Literal["exact", "relative", "absolute", "ratio of times", "time"]


@dataclass(frozen=True)
class Column:
    """One measured column. In its texts, ``{fd}`` stands for the distance, ``{on}`` for the feature net (nothing on
    InceptionV3), and ``{network}`` for the key of the arm's network in the cost document."""

    heading: str
    key: str
    """Dotted key of the number in its documents."""
    documents: tuple[str, ...] = ("metrics",)
    """The documents of an arm that have the key. The numbers of those that an arm has are added up."""
    quartiles: str | None = None
    """Dotted key of the lower and upper quartile."""
    unit: str | None = None
    """Unit to scale with an SI prefix; an empty one scales a count."""
    per_seed: bool = True
    """False where a number belongs to the backbone, not to a seed: it has no spread over seeds."""
    notes: tuple[str, ...] = ()
    """What a reader must know; stands below the table."""
    rule: Rule = "relative"
    """How far a repetition of the number may be off: by what its tolerance is measured."""


COLUMNS: dict[ColumnName, Column] = {
    "distance_before": Column(
        "{fd} before recovery ↓",
        "{fd}",
        ("cut",),
        notes=("Before recovery: right after the last cut, before any training on what it left; – if nothing is cut.",),
    ),
    "distance": Column("{fd} ↓", "{fd}", notes=("{fd}: Fréchet distance, after all training.",)),
    "over_floor": Column(
        "× floor ↓",
        "{fd}_ratio",
        notes=(
            "× floor: the distance to one half of the real data, over the distance of its other half to that half.",
        ),
    ),
    "inception_score": Column(
        "is{on} ↑",
        "is{on}",
        notes=("is{on}: the formula of the Inception Score, from 1 to the number of the net's classes.",),
    ),
    "kid": Column("KID ↓", "kid{on}", rule="absolute"),  # unbiased, so about zero where nothing can be told apart
    "precision": Column("precision ↑", "precision{on}", rule="absolute"),
    "recall": Column("recall ↑", "recall{on}", rule="absolute"),
    "agreement": Column(
        "class agreement ↑",
        "agreement",
        notes=("Class agreement: share of images that the study's own classifier puts in the class asked for.",),
        rule="absolute",
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
        "speed-up ↑ [quartiles]",
        "blocks.{network}.speedup",
        ("cost",),
        quartiles="blocks.{network}.speedup_quartiles",
        per_seed=False,
        notes=("Speed-up: measured latency of the unpruned network over the row's, median and quartiles of pairs.",),
        rule="ratio of times",
    ),
    "steps": Column("steps", "total_steps", ALL, per_seed=False, notes=(SINCE_PRE_TRAINING,), rule="exact"),
    # A vote that goes another way trains a network of another size, so its operations are no exact number.
    "training_flops": Column("training", "total_flops", ALL, unit="FLOP", notes=(SINCE_PRE_TRAINING,)),
    "training_seconds": Column(
        "training time (s)", "total_seconds", ALL, notes=(SINCE_PRE_TRAINING, WALL_TIME), rule="time"
    ),
}


@dataclass(frozen=True)
class Cell:
    """One measured number of a row, and where it came from."""

    value: int | float | None
    """Mean over the seeds; None where it was not measured."""
    std: float | None = None
    """Sample standard deviation over seeds; None for one seed."""
    interval: float | None = None
    """Half-width of the 95 % t-interval of the mean; None for one seed."""
    quartiles: tuple[float, ...] | None = None
    """Lower and upper quartile, where the column has them."""
    sources: tuple[dict[str, str], ...] = ()
    """For each seed and document: the arm's folder, the file, and the key in it."""

    def text(self, factor: float = 1) -> str:
        """Three significant digits of the mean, counts in full; interval and quartiles to the same decimal."""
        if self.value is None:
            return "–"
        if isinstance(self.value, int) and factor == 1:
            return str(self.value)
        value = self.value / factor
        decimals = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        if self.quartiles is not None:
            low, high = (quartile / factor for quartile in self.quartiles)
            return f"{value:.2f} [{low:.2f}, {high:.2f}]"
        spread = "" if self.interval is None else f" ± {self.interval / factor:.{decimals}f}"
        return f"{value:.{decimals}f}{spread}"


def words(distance: str) -> dict[str, str]:
    """The texts that stand for ``{fd}`` and ``{on}``."""
    return {"fd": distance, "on": "" if distance == "fid" else distance.removeprefix("fd")}


def measure(column: Column, seeds: Sequence[ArmResult], distance: str) -> Cell:
    """One cell: the mean over the seeds. It is empty where the number of any seed is missing."""
    values, sources, quartiles = [], [], None
    for arm in seeds:
        names = words(distance) | {"network": arm.network}
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
    return Cell(mean(values), stdev(values), t_interval(values), quartiles, tuple(sources))


def si_prefix(values: Iterable[float | None]) -> tuple[float, str]:
    """Factor and SI prefix that show the largest of ``values`` with one to three digits before the point."""
    largest = max((abs(value) for value in values if value is not None), default=0)
    power = min(max(int(math.log10(largest)) // 3, 0), 6) if largest > 0 else 0
    return 1000.0**power, ("", "k", "M", "G", "T", "P", "E")[power]
