"""Figures of arms: training curves (the paper's Figure 8), kept blocks, distance against ratio, and samples."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from entpruner.data.store import ImageSet, shown
from entpruner.errors import UserError
from entpruner.evaluation.intervals import POSITIVE, bounded_interval
from entpruner.reporting.figures import COLOURS, PANEL, drawing, legend_below, line_styles, panels, without_frame

# ---------------------------------------------------------------------------------------------------- training curves


@dataclass(frozen=True)
class Curve:
    """The training curve of one arm."""

    panel: str
    """The title of the panel: the backbone and the data. Curves with the same title share axes."""
    label: str
    points: Sequence[Mapping[str, Any]]
    """The logged points of all stages in the order of their steps, each with step, loss, stage and number of blocks."""


HALF_LIFE = 5
"""The half-life, in logged points, of the exponential average of the loss."""


def curves(arms: Sequence[Curve], target: Path) -> None:
    """Draw the training loss against the step, and the number of blocks below it (the paper's Figure 8).

    Dotted lines mark the steps at which blocks were removed. A thin line is the logged loss, and a thick line is its
    exponential average. The average begins anew at each stage, because it would otherwise hide the effect of a cut.
    """
    styles, titles = line_styles(arm.label for arm in arms), {arm.panel for arm in arms}
    most = max(point["blocks"] for arm in arms for point in arm.points)
    with drawing(target, PANEL * len(titles), 4.6) as figure:
        columns = panels(figure, (arm.panel for arm in arms), rows=2, sharex="col", height_ratios=(4, 1))
        for title, (above, below) in columns.items():
            marks: set[float] = set()
            for arm in (arm for arm in arms if arm.panel == title):
                under = 1 - list(styles).index(arm.label) / len(styles)
                width = 1.2 + min(6, 1.2 * len(styles)) * under  # wider lines lie below, so all lines show
                marks |= draw_curve(above, below, arm, styles[arm.label], width)
            for mark in marks:
                above.axvline(mark, color="0.5", linestyle=":", linewidth=1)
            above.set_yscale("log")
            above.yaxis.set_major_formatter(FormatStrFormatter("%.4g"))
            above.yaxis.set_minor_formatter(FormatStrFormatter("%.4g"))
            below.set_xlabel("training step")
            below.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            below.set_ylim(0, 1.15 * most)
        above, below = next(iter(columns.values()))
        above.set_ylabel(f"training loss\n(average, half-life {HALF_LIFE} points)")
        below.set_ylabel("blocks left")
        legend_below(figure, styles, columns=2 * len(titles))


def draw_curve(above: Axes, below: Axes, arm: Curve, style: dict[str, Any], width: float) -> set[float]:
    """Draw the loss of an arm, and its blocks as a line of ``width`` points. Returns the steps at which it was cut."""
    step, loss, blocks, stage = (
        np.array([point[key] for point in arm.points]) for key in ("step", "loss", "blocks", "stage")
    )
    starts = np.flatnonzero(np.diff(stage)) + 1
    average = np.concatenate([smoothed(part, HALF_LIFE) for part in np.split(loss, starts)])
    above.plot(step, loss, color=style["color"], alpha=0.25, linewidth=0.6)
    above.plot(step, average, **style)
    below.plot(step, blocks, color=style["color"], linewidth=width, drawstyle="steps-post", solid_capstyle="butt")
    return set(step[starts - 1].tolist())


def smoothed(values: NDArray[np.float64], half_life: float) -> NDArray[np.float64]:
    """The exponential average of values (n,), in which the weight of a value halves with each ``half_life`` values.

    It is divided by the sum of the weights so far, so that it is unbiased at its start.
    """
    keep = 0.5 ** (1 / half_life)
    sums = list(accumulate(values, lambda so_far, value: keep * so_far + (1 - keep) * value, initial=0.0))[1:]
    return np.array(sums) / (1 - keep ** np.arange(1, len(values) + 1))


# -------------------------------------------------------------------------------------------------------- kept blocks


@dataclass(frozen=True)
class KeptBlocks:
    """The numbers of the blocks that an arm kept, of a network with ``depth`` blocks."""

    label: str
    kept: Sequence[int]
    depth: int


def kept_blocks(arms: Sequence[KeptBlocks], target: Path) -> None:
    """Draw one row for each arm and one column for each block of the unpruned network, filled if the arm kept it."""
    depth = max(arm.depth for arm in arms)
    cells = np.full((len(arms), depth), np.nan)  # NaN: a shallower network has no such block
    for cell, arm in zip(cells, arms, strict=True):
        cell[: arm.depth] = 0
        cell[list(arm.kept)] = 1
    with drawing(target, 0.24 * depth + 2.4, 0.2 * len(arms) + 0.6) as figure:
        axes = figure.subplots()
        colours = ListedColormap(["#ececec", COLOURS[0]])
        axes.pcolormesh(cells, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
        axes.set_aspect(0.85)
        axes.invert_yaxis()
        axes.set_xticks(np.arange(depth) + 0.5, map(str, range(depth)), fontsize=7)
        axes.set_yticks(np.arange(len(arms)) + 0.5, [arm.label for arm in arms], fontsize=8)
        for row, arm in enumerate(arms):
            axes.text(depth + 0.25, row + 0.5, f"{len(arm.kept)}/{arm.depth}", va="center", fontsize=7)
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("block, filled where kept")
        without_frame(axes)


# --------------------------------------------------------------------------------------------- distance against ratio


@dataclass(frozen=True)
class DistanceRow:
    """The distances of an arm at one ratio."""

    panel: str
    """The title of the panel: the backbone and the data. Rows with the same title share axes."""
    label: str
    ratio: float | None
    """The share of blocks that are removed. None for an unpruned arm."""
    distances: Sequence[float]
    """The distances of the arm, one for each seed."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean. It has no width for a single seed, whose spread is unknown."""
        return bounded_interval(self.distances, POSITIVE) or (self.distances[0], self.distances[0])


def distance_vs_ratio(rows: Sequence[DistanceRow], distance: str, target: Path) -> None:
    """Draw the distance against the ratio, with a line for each label. Unpruned arms are horizontal lines.

    With two or more seeds, error bars show the 95 % interval of the mean. For an unpruned arm, a band shows it.
    ``distance`` is the name of the distance. Raises UserError if no arm of a panel is pruned.
    """
    styles, titles = line_styles(row.label for row in rows), list(dict.fromkeys(row.panel for row in rows))
    for title in titles:
        if all(row.ratio is None for row in rows if row.panel == title):
            raise UserError(f"figure {target.name}: no arm of {title} is pruned; name some that are")
    with drawing(target, PANEL * len(titles), 3.6) as figure:
        for title, (axes,) in panels(figure, titles).items():
            shown = [row for row in rows if row.panel == title]
            ratios = sorted({row.ratio for row in shown if row.ratio is not None})
            width = ratios[-1] - ratios[0] or ratios[0]
            pruned = list(dict.fromkeys(row.label for row in shown if row.ratio is not None))
            for label, style in styles.items():
                place = pruned.index(label) if label in pruned else 0  # error bars do not overlap
                shift = 0.06 * width * (place - (len(pruned) - 1) / 2) / len(pruned)
                draw_distances(axes, [row for row in shown if row.label == label], shift, style)
            axes.set_xticks(ratios)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_xlim(ratios[0] - 0.1 * width, ratios[-1] + 0.1 * width)
            axes.set(xlabel="blocks removed", ylabel=f"{distance}, lower is better")
        legend_below(figure, styles, columns=2 * len(titles))


def draw_distances(axes: Axes, rows: Sequence[DistanceRow], shift: float, style: dict[str, Any]) -> None:
    """Draw the rows of one label: unpruned arms as horizontal lines, pruned ones as one line with error bars.

    The pruned ones are moved to the right by ``shift``, in units of the ratio.
    """
    for row in rows:
        low, high = row.interval
        if row.ratio is None:
            axes.axhline(mean(row.distances), **style)
            if low < high:
                axes.axhspan(low, high, color=style["color"], alpha=0.12, linewidth=0)
    pruned = sorted((row.ratio + shift, mean(row.distances), *row.interval) for row in rows if row.ratio is not None)
    if pruned:
        x, y, lows, highs = map(np.array, zip(*pruned, strict=True))
        bars = (y - lows, highs - y) if (lows < highs).any() else None
        axes.errorbar(x, y, yerr=bars, marker="o", markersize=4, capsize=2, elinewidth=1, **style)


# ------------------------------------------------------------------------------------------------------------ samples

GAP = 4
"""The number of pixels between two samples."""


def samples(rows: Sequence[tuple[str, ImageSet]], class_names: Sequence[str], target: Path, per_class: int = 2) -> None:
    """Draw images, with a row for each arm and ``per_class`` columns for each class, which show its first images.

    Arms with the same seed share labels and noise, so the samples of a column can be compared. Pixels are enlarged and
    not smoothed. Raises UserError if a row has fewer than ``per_class`` images of a class.
    """
    shown = np.stack([first_of_each_class(*row, class_names, per_class, target.name) for row in rows])
    count, columns, channels, height, width = shown.shape
    scale = math.ceil(64 / height)
    tall, wide = height * scale + GAP, width * scale + GAP
    tiles = shown.repeat(scale, axis=3).repeat(scale, axis=4)
    tiles = np.pad(tiles, [(0, 0)] * 3 + [(0, GAP)] * 2, constant_values=255)  # (rows, columns, C, tall, wide)
    canvas = tiles.transpose(0, 3, 1, 4, 2).reshape(count * tall, columns * wide, channels)
    inches = 0.5 / wide  # so that a sample is half an inch wide
    with drawing(target, canvas.shape[1] * inches + 1.8, canvas.shape[0] * inches + 0.4) as figure:
        axes = figure.subplots()
        axes.imshow(canvas if channels == 3 else canvas[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="none")
        names = [textwrap.fill(name, 8 * per_class) for name in class_names]
        axes.set_xticks((np.arange(len(names)) + 0.5) * per_class * wide - GAP / 2, names)
        axes.set_yticks((np.arange(count) + 0.5) * tall - GAP / 2, [label for label, _ in rows])
        without_frame(axes)


def first_of_each_class(
    label: str, images: ImageSet, class_names: Sequence[str], per_class: int, figure: str
) -> NDArray[np.uint8]:
    """The first images of each class: (classes × per_class, C, H, W). ``figure`` is named in errors."""
    chosen = [np.flatnonzero(images.labels == number)[:per_class] for number, _ in enumerate(class_names)]
    for name, found in zip(class_names, chosen, strict=True):
        if len(found) < per_class:
            raise UserError(f"figure {figure}: {label} has {len(found)} images of class {name}, not {per_class}")
    return np.asarray(shown(images.images[np.concatenate(chosen)]))
