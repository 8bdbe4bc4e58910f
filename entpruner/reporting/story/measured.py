"""What the page tells of a study, read from its documents: the comparison that leads it, scores, votes and curves."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from entpruner.layout import CURVES, WITHIN, Layout
from entpruner.reporting.arm_figures import HALF_LIFE, smoothed
from entpruner.reporting.records import Records
from entpruner.reporting.results import curve_of
from entpruner.reporting.tables import Row
from entpruner.reporting.words import sentence
from entpruner.scores import Scores
from entpruner.study.arms import ArmIdentity

Family = Literal["unpruned", "EntPruner", "LD-Pruner", "random", "other"]
MOST_POINTS = 300
"""How many points of a training curve are drawn."""


def family(arm: ArmIdentity) -> Family:
    """The kind of an arm, which has a colour of its own on the page."""
    if arm.schedule == "none":
        return "unpruned"
    if arm.criterion == "ced" and arm.schedule == "vote":
        return "EntPruner"
    if arm.criterion == "ld_pruner":
        return "LD-Pruner"
    return "random" if arm.criterion == "random" else "other"


@dataclass(frozen=True)
class Comparison:
    """An unpruned network and a pruned one, with rivals that have as many blocks."""

    unpruned: Row
    pruned: Row
    rivals: tuple[Row, ...]
    """The first LD-Pruner and the first random set with as many blocks, as far as the study has them."""

    @property
    def where(self) -> str:
        return self.pruned.where

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.unpruned, self.pruned, *self.rivals

    def headline(self, distance: str) -> str:
        """One sentence: the share of blocks that is gone, the speed-up, and the distances."""
        arm = self.pruned.seeds[0]
        gone = arm.depth - len(arm.kept_blocks)
        share = "Half the blocks" if 2 * gone == arm.depth else f"{gone} of {arm.depth} blocks"
        speedup = self.pruned.cells["speedup"].value
        faster = "" if speedup is None else f" {speedup:.2f}× faster;"
        before, after, *others = (row.cells["distance"].short() for row in self.rows)
        named = [f"{family(row.seeds[0])} {value}" for row, value in zip(self.rivals, others, strict=True)]
        return f"{share} gone:{faster} {distance} {', '.join([f'{before} → {after}', *named])}"

    def openness(self) -> Iterator[str]:
        """Sentences on what the intervals say about the pruned network and its rivals."""
        ours = self.pruned.cells["distance"]
        for rival in (self.unpruned, *self.rivals):
            theirs, seeds = rival.cells["distance"], len(rival.seeds)
            if ours.interval is None or theirs.interval is None:
                yield f"{sentence(rival.label)}: one seed alone, so the difference has no interval."
            elif ours.is_better(theirs, -1) or theirs.is_better(ours, -1):
                word = "nearer to" if ours.is_better(theirs, -1) else "further from"
                yield f"{self.pruned.label} ends {word} the real images than {rival.label}, over {seeds} seeds."
            else:
                yield f"{self.pruned.label} and {rival.label}: their intervals over {seeds} seeds overlap."


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """A comparison for each backbone and data set that has an unpruned network and EntPruner's. Downstream comes first.

    Of EntPruner's ratios the one nearest to a half is taken.
    """
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.seeds[0].data == "upstream"):
        groups.setdefault(row.where, []).append(row)
    found = []
    for group in groups.values():
        kinds = {kind: [row for row in group if family(row.seeds[0]) == kind] for kind in
                 ("unpruned", "EntPruner", "LD-Pruner", "random")}  # fmt: skip
        if kinds["unpruned"] and kinds["EntPruner"]:
            pruned = min(kinds["EntPruner"], key=lambda row: abs((row.seeds[0].ratio or 0) - 0.5))
            alike = [[row for row in kinds[kind] if row.rank == pruned.rank] for kind in ("LD-Pruner", "random")]
            found.append(Comparison(kinds["unpruned"][0], pruned, tuple(rows[0] for rows in alike if rows)))
    return found


def ced_of(records: Records, arm: ArmIdentity) -> Scores | None:
    """CED of every block of the network that an arm begins with, if it was scored."""
    path = WITHIN.scores(arm.backbone, arm.data, arm.seed, "ced").files["scores"]
    return Scores.from_json(records[path]) if path in records else None


def decisions_of(records: Records, arm: ArmIdentity) -> list[dict[str, Any]]:
    """The decision of every stage of an arm, in their order."""
    found = records.matching(WITHIN.stage(arm.key, "*").files["decision"])
    return sorted(found.values(), key=lambda decision: decision["stage"])


def curves_of(records: Records, arms: Sequence[ArmIdentity]) -> dict[str, list[tuple[float, float]]]:
    """The key of an arm -> its steps and smoothed losses, thinned out. Arms without a curve are left out."""
    published: dict[str, list[tuple[float, float]]] = {}
    if (file := records.folder / CURVES).exists():
        with file.open() as opened:
            for point in csv.DictReader(opened):
                published.setdefault(point["arm"], []).append((float(point["step"]), float(point["loss"])))
    paths, found = Layout.at(records.folder), {}
    for arm in arms:
        points = published.get(arm.key, [])
        if not points and paths.final(arm.key).files["curve"].exists():
            points = [(point["step"], point["loss"]) for point in curve_of(paths.arm(arm.key))]
        if points:
            steps, losses = np.array(points, dtype=float).T
            every = slice(None, None, -(-len(steps) // MOST_POINTS))
            found[arm.key] = list(zip(steps[every].tolist(), smoothed(losses, HALF_LIFE)[every].tolist(), strict=True))
    return found


@dataclass(frozen=True)
class Made:
    """How the results were made."""

    devices: tuple[str, ...]
    versions: tuple[str, ...]
    commits: tuple[str, ...]
    seconds: float
    """The CPU time of all commands."""

    @property
    def time(self) -> str:
        return f"{self.seconds / 3600:.1f} hours" if self.seconds > 7200 else f"{self.seconds / 60:.0f} minutes"

    @staticmethod
    def read(records: Records) -> "Made":
        timings = list(records.timings().values())
        return Made(
            devices=distinct(timing["device"] for timing in timings),
            versions=distinct(f"Python {timing['python']}, torch {timing['torch']}" for timing in timings),
            commits=distinct(str(timing.get("commit")) for timing in timings),
            seconds=sum(timing.get("cpu_seconds", timing["seconds"]) for timing in timings),
        )


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def path_of(folder: Path, file: Path) -> Path | None:
    """A file of the study, if it is there."""
    return folder / file if (folder / file).exists() else None
