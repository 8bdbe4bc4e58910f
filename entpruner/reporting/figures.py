"""The paper's pictures, as PNG and SVG. The same input gives the same bytes: no dates, no random names, one style."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy.stats import spearmanr

from entpruner.artefacts import whole_file
from entpruner.errors import UserError
from entpruner.scores.context import Scores

# Okabe and Ito's palette, which colour-blind readers can tell apart; yellow is left out: it is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
RISES, FALLS = COLOURS[0], COLOURS[1]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
    "svg.hashsalt": "entpruner",
    "svg.fonttype": "none",
}


def save(figure: Figure, target: Path) -> None:
    """``<target>.png`` and ``<target>.svg``."""
    FigureCanvasAgg(figure)
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        with whole_file(target.with_name(f"{target.name}.{suffix}")) as file:
            figure.savefig(file, format=suffix, metadata=metadata)


# ----------------------------------------------------------------------------------------- entropy change against loss


def entropy_vs_loss(panels: Mapping[str, tuple[Scores, Scores]], target: Path) -> None:
    """Figure 2: what removing a block does to the output's entropy, against what it does to the loss.

    ``panels``: backbone -> (scores of ``ced``, scores of ``sensitivity``). Above, a numbered point a block, and
    Spearman's rank correlation of CED with the rise of the loss; below, the signed entropy change block by block.
    Error bars are standard errors. Raises UserError where the two scores are not of the same blocks.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 6.4))
        axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=(3, 2))
        for (name, (ced, sensitivity)), (above, below) in zip(panels.items(), axes.T, strict=True):
            if ced.blocks != sensitivity.blocks:
                raise UserError(
                    f"figure {target.name}: {name}: ced and sensitivity scored different blocks; rescore them"
                )
            scatter(above, ced, sensitivity)
            above.set_title(name)
            bars(below, ced)
        signs = [
            Line2D([], [], color="w", marker=marker, markerfacecolor=colour, markersize=8, label=label)
            for marker, colour, label in (("o", RISES, "entropy rises"), ("s", FALLS, "entropy falls"))
        ]
        figure.legend(handles=signs, loc="outside lower center", ncols=2)
        save(figure, target)


def scatter(axes: Axes, ced: Scores, sensitivity: Scores) -> None:
    """|entropy change| against loss change, both on logarithmic axes where they allow it."""
    change, loss = np.array(ced.signed), np.array(sensitivity.signed)
    for blocks, colour, marker in ((change >= 0, RISES, "o"), (change < 0, FALLS, "s")):
        axes.errorbar(
            np.abs(change[blocks]),
            loss[blocks],
            xerr=errors(ced)[blocks],
            yerr=errors(sensitivity)[blocks],
            fmt=marker,
            color=colour,
            markersize=10.5,
            markeredgecolor="white",
            elinewidth=1,
        )
    for block, x, y in zip(ced.blocks, np.abs(change), loss, strict=True):
        axes.annotate(str(block), (x, y), ha="center", va="center", color="white", fontsize=6, zorder=5)
    logarithmic(axes, "x", np.abs(change))
    logarithmic(axes, "y", loss)
    axes.margins(0.1, 0.15)
    axes.set_xlabel("|entropy change| on removal (nats a dimension)")
    axes.set_ylabel("loss change on removal")
    rank = spearmanr(ced.value, loss).statistic
    axes.text(0.03, 0.97, f"Spearman ρ = {rank:.2f} (n = {len(loss)})", transform=axes.transAxes, va="top")


def logarithmic(axes: Axes, which: str, values: NDArray[np.float64]) -> None:
    """A logarithmic axis; with values of 0 or below, one that is linear around 0 up to the smallest magnitude."""
    magnitudes = np.abs(values[values != 0])
    set_scale: Callable[..., None] = {"x": axes.set_xscale, "y": axes.set_yscale}[which]
    if (values > 0).all():
        set_scale("log", nonpositive="clip")
        if values.max() > 5 * values.min():  # a decade or so: its powers of ten are marks enough
            {"x": axes.xaxis, "y": axes.yaxis}[which].set_minor_formatter(NullFormatter())
    elif len(magnitudes):
        set_scale("symlog", linthresh=magnitudes.min())


def bars(axes: Axes, ced: Scores) -> None:
    """Signed entropy change, a bar a block."""
    change = np.array(ced.signed)
    colours = np.where(change >= 0, RISES, FALLS).tolist()
    axes.bar(ced.blocks, change, yerr=errors(ced), color=colours, error_kw={"elinewidth": 1}, capsize=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.set_xlim(min(ced.blocks) - 0.7, max(ced.blocks) + 0.7)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("block removed")
    axes.set_ylabel("entropy change\n(nats a dimension)")


def errors(scores: Scores) -> NDArray[np.float64]:
    """Standard errors; 0 where there is none."""
    return np.array([error or 0.0 for error in scores.stderr])


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
                colour = COLOURS[place % len(COLOURS)]
                step, loss, blocks, stage = (
                    np.array([point[key] for point in arm.points]) for key in ("step", "loss", "blocks", "stage")
                )
                starts = np.flatnonzero(np.diff(stage)) + 1
                average = np.concatenate([smoothed(part, half_life) for part in np.split(loss, starts)])
                above.plot(step, loss, color=colour, alpha=0.25, linewidth=0.6)
                above.plot(step, average, color=colour)
                wide = 1.2 + 1.2 * (len(labels) - 1 - place)  # so that arms with the same number of blocks all show
                below.plot(step, blocks, color=colour, linewidth=wide, drawstyle="steps-post", solid_capstyle="butt")
                marks.update(step[starts - 1].tolist())  # the step that the decision was taken at
            for mark in marks:
                above.axvline(mark, color="0.5", linestyle=":", linewidth=1)
            above.set_yscale("log")
            for set_formatter in (above.yaxis.set_major_formatter, above.yaxis.set_minor_formatter):
                set_formatter(FormatStrFormatter("%.2g"))
            above.set_title(panel)
            below.set_xlabel("training step")
            below.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            below.set_ylim(0, 1.15 * max(point["blocks"] for arm in arms for point in arm.points))
        axes[0, 0].set_ylabel(f"training loss\n(average, half-life {half_life:g} points)")
        axes[1, 0].set_ylabel("blocks left")
        key = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=label) for i, label in enumerate(labels)]
        figure.legend(handles=key, loc="outside lower center", ncols=min(len(labels), 2 * len(panels)))
        save(figure, target)


def smoothed(values: NDArray[np.float64], half_life: float) -> NDArray[np.float64]:
    """Exponential average, without the pull of its start: the weights of the points so far sum to 1."""
    keep, average, weight = 0.5 ** (1 / half_life), 0.0, 0.0
    result = np.empty(len(values))
    for i, value in enumerate(values):
        average, weight = keep * average + (1 - keep) * value, keep * weight + 1 - keep
        result[i] = average / weight
    return result


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
