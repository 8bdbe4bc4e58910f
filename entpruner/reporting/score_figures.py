"""Figures of block scores: entropy change against loss change (the paper's Figure 2), by block, and by timestep.

A figure has a panel for each backbone. It takes the scores by the names of the backbones.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy.stats import spearmanr

from entpruner.errors import UserError
from entpruner.reporting.figures import COLOURS, PANEL, drawing, legend_below, panels
from entpruner.scores.context import Scores

RISES, FALLS = COLOURS[:2]
SIGNS = {
    label: {"color": "w", "marker": marker, "markerfacecolor": colour, "markersize": 8}
    for label, marker, colour in (("entropy rises", "o", RISES), ("entropy falls", "s", FALLS))
}
CHANGE = LinearSegmentedColormap.from_list("change", [FALLS, "white", RISES])


def entropy_vs_loss(ced: Mapping[str, Scores], sensitivity: Mapping[str, Scores], target: Path) -> None:
    """Draw the change of the output's entropy when a block is removed, against the change of the loss (Figure 2).

    The upper axes have a numbered point for each block, and Spearman's rank correlation of CED with the loss change.
    The lower axes show the signed entropy change of each block. Error bars are standard errors. Raises UserError if
    ``sensitivity`` did not score the same blocks as ``ced``.
    """
    for name in ced:
        if ced[name].blocks != sensitivity[name].blocks:
            raise UserError(f"figure {target.name}: {name}: ced and sensitivity scored different blocks; rescore them")
    with drawing(target, PANEL * len(ced), 6.4) as figure:
        columns = panels(figure, ced, rows=2, height_ratios=(3, 2))
        for name, (above, below) in columns.items():
            scatter(above, ced[name], sensitivity[name])
            bars(below, ced[name])
        legend_below(figure, SIGNS)
        figure.draw_without_rendering()  # this computes the positions of the points on the page
        for name, (above, _) in columns.items():
            number(above, ced[name].blocks, np.abs(ced[name].signed), np.array(sensitivity[name].signed))


def scatter(axes: Axes, ced: Scores, sensitivity: Scores) -> None:
    """Draw |entropy change| against loss change, on logarithmic axes if the values allow it."""
    change, loss = np.array(ced.signed), np.array(sensitivity.signed)
    style: dict[str, Any] = {"markersize": 5, "markeredgecolor": "white", "elinewidth": 1}
    for blocks, colour, marker in ((change >= 0, RISES, "o"), (change < 0, FALLS, "s")):
        x, y, x_error, y_error = (v[blocks] for v in (np.abs(change), loss, errors(ced), errors(sensitivity)))
        axes.errorbar(x, y, xerr=x_error, yerr=y_error, color=colour, fmt=marker, **style)
    logarithmic(axes.xaxis, axes.set_xscale, np.abs(change))
    logarithmic(axes.yaxis, axes.set_yscale, loss)
    axes.margins(0.1, 0.15)
    axes.set(xlabel="|entropy change| on removal (nats a dimension)", ylabel="loss change on removal")
    rank = spearmanr(ced.value, loss).statistic
    axes.text(0.03, 0.97, f"Spearman ρ = {rank:.2f} (n = {len(loss)})", transform=axes.transAxes, va="top")


def number(axes: Axes, names: Sequence[int], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Write the number of each block beside its point (x, y), off the error bars.

    Twelve positions around the point are possible. The position is chosen that is furthest from the other points and
    the names so far: it has the smallest sum of inverse squared distances.
    """
    points = axes.transData.transform(np.stack([x, y], axis=1)) * 72 / axes.figure.dpi  # (N, 2), in units of 1/72 inch
    angles = np.deg2rad([quarter + angle for quarter in (0, 90, 180, 270) for angle in (30, 45, 60)])
    sides = 8 * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (12, 2)
    taken = list(points)
    for i, name in enumerate(names):
        others = np.delete(np.array(taken), i, axis=0)
        gaps = np.linalg.norm(points[i] + sides[:, None] - others, axis=2)  # (12, others)
        side = sides[np.argmin((gaps**-2).sum(axis=1))]
        taken.append(points[i] + side)
        axes.annotate(str(name), (x[i], y[i]), side, textcoords="offset points", ha="center", va="center", fontsize=7)


def logarithmic(axis: Axis, set_scale: Callable[..., None], values: NDArray[np.float64]) -> None:
    """Make an axis logarithmic. If a value is 0 or less, the axis is linear up to the smallest magnitude."""
    magnitudes = np.abs(values[values != 0])
    if (values > 0).all():
        set_scale("log", nonpositive="clip")
        if values.max() > 5 * values.min():  # labels at powers of ten are enough
            axis.set_minor_formatter(NullFormatter())
    elif len(magnitudes):
        set_scale("symlog", linthresh=magnitudes.min())


def ced_by_block(scored: Mapping[str, Scores], target: Path) -> None:
    """Draw the signed entropy change of every block, with its standard error."""
    with drawing(target, PANEL * len(scored), 3.0) as figure:
        for name, (axes,) in panels(figure, scored).items():
            bars(axes, scored[name])
        legend_below(figure, SIGNS)


def bars(axes: Axes, ced: Scores) -> None:
    """Draw a bar for each block: the signed entropy change, coloured by its sign."""
    change = np.array(ced.signed)
    colours = np.where(change >= 0, RISES, FALLS).tolist()
    axes.bar(ced.blocks, change, yerr=errors(ced), color=colours, error_kw={"elinewidth": 1}, capsize=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.set_xlim(min(ced.blocks) - 0.7, max(ced.blocks) + 0.7)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="block removed", ylabel="entropy change\n(nats a dimension)")


def errors(scores: Scores) -> NDArray[np.float64]:
    """The standard errors of all blocks (L,), with 0 for a block without one."""
    return np.array([error or 0.0 for error in scores.stderr])


def ced_by_timestep(scored: Mapping[str, Scores], target: Path) -> None:
    """Draw a map of the signed entropy change by block and timestep bin, from the data (left) to pure noise (right).

    The colour scale of a panel is symmetric around 0 and ends at the largest magnitude. Bins without draws are hatched.
    Raises UserError if the scores have fewer than two bins.
    """
    with drawing(target, PANEL * len(scored), 1.4 + 0.2 * max(len(ced.blocks) for ced in scored.values())) as figure:
        for name, (axes,) in panels(figure, scored).items():
            change = np.array(scored[name].per_timestep or [[]], dtype=float)  # (L, bins), NaN for None
            blocks, bins = change.shape
            if bins < 2:
                raise UserError(
                    f"figure {target.name}: {name}: {bins} timestep bins make no map; set scoring.bins to 2 or more"
                )
            largest = np.nanmax(np.abs(change), initial=0) or 1.0
            axes.patch.set(hatch="////", edgecolor="0.7", facecolor="white")
            edges, rows = np.linspace(0, 1, bins + 1), np.arange(blocks + 1) - 0.5
            cells = axes.pcolormesh(edges, rows, change, cmap=CHANGE, vmin=-largest, vmax=largest)
            axes.set_yticks(range(blocks), map(str, scored[name].blocks), fontsize=7)
            axes.invert_yaxis()
            axes.grid(visible=False)
            axes.set(xlabel="timestep, from data (0) to noise (1)", ylabel="block removed")
            bar = figure.colorbar(cells, ax=axes, pad=0.02, aspect=30, label="entropy change (nats a dimension)")
            bar.outline.set_visible(False)
