"""Pictures of arms: training curves (Figure 8), kept blocks, distance against ratio, samples side by side."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from entpruner.errors import UserError
from entpruner.evaluation.intervals import t_interval
from entpruner.reporting.figures import COLOURS, STYLE, line, save

KEPT = ListedColormap(["#ececec", COLOURS[0]])

# ---------------------------------------------------------------------------------------------------- training curves


@dataclass(frozen=True)
class Curve:
    """The training curve of one arm: the points of its ``curve.jsonl``, all stages in a row."""

    panel: str
    """Curves of the same panel (the backbone) share axes."""
    label: str
    points: Sequence[Mapping[str, Any]]


def curves(arms: Sequence[Curve], target: Path, half_life: float = 5) -> None:
    """Figure 8: training loss against step, and below it how many blocks were left; dotted lines mark the stages.

    The thin line is the loss as logged, the thick one its exponential average with ``half_life`` logged points, which
    starts anew with each stage so as not to hide what a cut does.
    """
    panels = list(dict.fromkeys(arm.panel for arm in arms))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 4.6))
        axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(4, 1))
        labels = list(dict.fromkeys(arm.label for arm in arms))
        for panel, (above, below) in zip(panels, axes.T, strict=True):
            marks: set[float] = set()
            for arm in (arm for arm in arms if arm.panel == panel):
                place = labels.index(arm.label)
                colour = line(place)["color"]
                step, loss, blocks, stage = (
                    np.array([point[key] for point in arm.points]) for key in ("step", "loss", "blocks", "stage")
                )
                starts = np.flatnonzero(np.diff(stage)) + 1
                average = np.concatenate([smoothed(part, half_life) for part in np.split(loss, starts)])
                above.plot(step, loss, color=colour, alpha=0.25, linewidth=0.6)
                above.plot(step, average, **line(place))
                under = 1 - place / len(labels)  # so that arms with the same number of blocks all show
                wide = 1.2 + min(6, 1.2 * len(labels)) * under
                below.plot(step, blocks, color=colour, linewidth=wide, drawstyle="steps-post", solid_capstyle="butt")
                marks.update(step[starts - 1].tolist())  # the step that the decision was taken at
            for mark in marks:
                above.axvline(mark, color="0.5", linestyle=":", linewidth=1)
            above.set_yscale("log")
            for set_formatter in (above.yaxis.set_major_formatter, above.yaxis.set_minor_formatter):
                set_formatter(FormatStrFormatter("%.4g"))
            above.set_title(panel)
            below.set_xlabel("training step")
            below.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            below.set_ylim(0, 1.15 * max(point["blocks"] for arm in arms for point in arm.points))
        axes[0, 0].set_ylabel(f"training loss\n(average, half-life {half_life:g} points)")
        axes[1, 0].set_ylabel("blocks left")
        explain_lines(figure, labels, columns=2 * len(panels))
        save(figure, target)


def explain_lines(figure: Figure, labels: Sequence[str], columns: int) -> None:
    key = [Line2D([], [], label=label, **line(place)) for place, label in enumerate(labels)]
    figure.legend(handles=key, loc="outside lower center", ncols=min(len(labels), columns))


def smoothed(values: NDArray[np.float64], half_life: float) -> NDArray[np.float64]:
    """Exponential average, without the pull of its start: the weights of the points so far sum to 1."""
    keep, average, weight = 0.5 ** (1 / half_life), 0.0, 0.0
    result = np.empty(len(values))
    for i, value in enumerate(values):
        average, weight = keep * average + (1 - keep) * value, keep * weight + 1 - keep
        result[i] = average / weight
    return result


# -------------------------------------------------------------------------------------------------------- kept blocks


@dataclass(frozen=True)
class KeptBlocks:
    """What one arm kept of a network of ``depth`` blocks."""

    label: str
    kept: Sequence[int]
    depth: int


def kept_blocks(arms: Sequence[KeptBlocks], target: Path) -> None:
    """A row an arm, in their order; a column a block of the unpruned network, filled where the arm kept it."""
    depth = max(arm.depth for arm in arms)
    cells = np.full((len(arms), depth), np.nan)  # a shallower network has no cell there
    for cell, arm in zip(cells, arms, strict=True):
        cell[: arm.depth] = 0
        cell[list(arm.kept)] = 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.24 * depth + 2.4, 0.2 * len(arms) + 0.6))
        axes = figure.subplots()
        axes.pcolormesh(cells, cmap=KEPT, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
        axes.set_aspect(0.85)
        axes.invert_yaxis()
        axes.set_xticks(np.arange(depth) + 0.5, map(str, range(depth)), fontsize=7)
        axes.set_yticks(np.arange(len(arms)) + 0.5, [arm.label for arm in arms], fontsize=8)
        for row, arm in enumerate(arms):
            axes.text(depth + 0.25, row + 0.5, f"{len(arm.kept)}/{arm.depth}", va="center", fontsize=7)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("block, filled where kept")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        save(figure, target)


# --------------------------------------------------------------------------------------------- distance against ratio


@dataclass(frozen=True)
class DistanceRow:
    """The distances of one row, a number a seed."""

    panel: str
    """Rows of the same panel (the backbone and the data) share axes."""
    label: str
    ratio: float | None
    """Share of blocks removed; None for an unpruned arm."""
    distances: Sequence[float]


def distance_vs_ratio(rows: Sequence[DistanceRow], distance: str, target: Path) -> None:
    """Distance against ratio, a line a label; the unpruned are horizontal lines.

    Error bars, and bands, are 95 % t-intervals of the mean over seeds, where there are two or more. ``distance`` is
    what the distance is called. Raises UserError if no arm of a panel is pruned.
    """
    panels = list(dict.fromkeys(row.panel for row in rows))
    labels = list(dict.fromkeys(row.label for row in rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 3.6))
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            shown = [row for row in rows if row.panel == panel]
            ratios = sorted({row.ratio for row in shown if row.ratio is not None})
            if not ratios:
                raise UserError(f"figure {target.name}: no arm of {panel} is pruned; name some that are")
            pruned = list(dict.fromkeys(row.label for row in shown if row.ratio is not None))
            width = ratios[-1] - ratios[0] or ratios[0]
            for place, label in enumerate(labels):
                ours = [row for row in shown if row.label == label]
                draw_unpruned(axes, [row for row in ours if row.ratio is None], line(place))
                if label in pruned:  # error bars stand side by side
                    shift = 0.06 * width * (pruned.index(label) - (len(pruned) - 1) / 2) / len(pruned)
                    draw_pruned(axes, [row for row in ours if row.ratio is not None], shift, line(place))
            axes.set_xticks(ratios)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_xlim(ratios[0] - 0.1 * width, ratios[-1] + 0.1 * width)
            axes.set_title(panel)
            axes.set_xlabel("blocks removed")
            axes.set_ylabel(f"{distance}, lower is better")
        explain_lines(figure, labels, columns=2 * len(panels))
        save(figure, target)


def draw_unpruned(axes: Axes, rows: Sequence[DistanceRow], style: dict[str, Any]) -> None:
    for row in rows:
        axes.axhline(mean(row.distances), **style)
        if half := half_width(row):
            low, high = mean(row.distances) - half, mean(row.distances) + half
            axes.axhspan(low, high, color=style["color"], alpha=0.12, linewidth=0)


def draw_pruned(axes: Axes, rows: Sequence[DistanceRow], shift: float, style: dict[str, Any]) -> None:
    rows = sorted(rows, key=lambda row: row.ratio or 0)
    x = [(row.ratio or 0) + shift for row in rows]
    y, half = [mean(row.distances) for row in rows], [half_width(row) for row in rows]
    axes.errorbar(x, y, yerr=half if any(half) else None, marker="o", markersize=4, capsize=2, elinewidth=1, **style)


def half_width(row: DistanceRow) -> float:
    """Of the interval of the mean; 0 for a single seed, whose spread is unknown."""
    return t_interval(row.distances) if len(row.distances) > 1 else 0.0


# ------------------------------------------------------------------------------------------------------------ samples


@dataclass(frozen=True)
class SampleRow:
    """Images of one arm (or real ones), of which the grid takes the first of each class."""

    label: str
    images: NDArray[np.uint8]  # (N, C, H, W)
    labels: NDArray[np.int64]  # (N,)


def samples(rows: Sequence[SampleRow], class_names: Sequence[str], target: Path, per_class: int = 2) -> None:
    """A row an arm, ``per_class`` columns a class; arms of a seed share labels and noise, so a column compares like
    with like.

    Pixels are enlarged, never smoothed. Raises UserError where a row has too few images of a class.
    """
    shown = np.stack([first_of_each_class(row, class_names, per_class, target.name) for row in rows])
    shown = shown.transpose(0, 1, 3, 4, 2)  # (rows, columns, H, W, C)
    count, columns, height, width, channels = shown.shape
    scale = math.ceil(64 / height)
    gap = 4
    canvas = np.full((count * (height * scale + gap), columns * (width * scale + gap), channels), 255, np.uint8)
    for i, j in np.ndindex(count, columns):
        top, left = i * (height * scale + gap), j * (width * scale + gap)
        enlarged = shown[i, j].repeat(scale, axis=0).repeat(scale, axis=1)
        canvas[top : top + height * scale, left : left + width * scale] = enlarged
    with mpl.rc_context(STYLE):
        inches = 0.5 / (width * scale + gap)  # a picture is half an inch wide
        figure = Figure(figsize=(canvas.shape[1] * inches + 1.8, canvas.shape[0] * inches + 0.4))
        axes = figure.subplots()
        axes.imshow(canvas if channels == 3 else canvas[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="none")
        names = [textwrap.fill(name, 8 * per_class) for name in class_names]
        axes.set_xticks((np.arange(len(names)) + 0.5) * per_class * (width * scale + gap) - gap / 2, names)
        axes.set_yticks((np.arange(count) + 0.5) * (height * scale + gap) - gap / 2, [row.label for row in rows])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        save(figure, target)


def first_of_each_class(row: SampleRow, class_names: Sequence[str], per_class: int, name: str) -> NDArray[np.uint8]:
    """(classes × per_class, C, H, W)"""
    chosen: list[NDArray[np.int64]] = []
    for label, class_name in enumerate(class_names):
        found = np.flatnonzero(row.labels == label)[:per_class]
        if len(found) < per_class:
            raise UserError(
                f"figure {name}: {row.label} has {len(found)} images of class {class_name}, not {per_class}"
            )
        chosen.append(found)
    return np.asarray(row.images[np.concatenate(chosen)])
