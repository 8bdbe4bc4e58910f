"""Pictures of block scores: entropy change against loss change (Figure 2), block by block, and by timestep."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy.stats import spearmanr

from entpruner.errors import UserError
from entpruner.reporting.figures import COLOURS, STYLE, save
from entpruner.scores.context import Scores

RISES, FALLS = COLOURS[0], COLOURS[1]
CHANGE = LinearSegmentedColormap.from_list("change", [FALLS, "white", RISES])


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
        explain_signs(figure)
        figure.draw_without_rendering()  # now it is known where the points lie on the page
        for (ced, sensitivity), above in zip(panels.values(), axes[0], strict=True):
            number(above, ced.blocks, np.abs(ced.signed), np.array(sensitivity.signed))
        save(figure, target)


def explain_signs(figure: Figure) -> None:
    signs = [
        Line2D([], [], color="w", marker=marker, markerfacecolor=colour, markersize=8, label=label)
        for marker, colour, label in (("o", RISES, "entropy rises"), ("s", FALLS, "entropy falls"))
    ]
    figure.legend(handles=signs, loc="outside lower center", ncols=2)


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
            markersize=5,
            markeredgecolor="white",
            elinewidth=1,
        )
    logarithmic(axes, "x", np.abs(change))
    logarithmic(axes, "y", loss)
    axes.margins(0.1, 0.15)
    axes.set_xlabel("|entropy change| on removal (nats a dimension)")
    axes.set_ylabel("loss change on removal")
    rank = spearmanr(ced.value, loss).statistic
    axes.text(0.03, 0.97, f"Spearman ρ = {rank:.2f} (n = {len(loss)})", transform=axes.transAxes, va="top")


def number(axes: Axes, names: Sequence[int], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Write each point's name beside it, off its error bars, where it is furthest from the other points and names."""
    points = axes.transData.transform(np.stack([x, y], axis=1)) * 72 / axes.figure.dpi  # (N, 2) in typographic points
    angles = np.deg2rad([quarter + angle for quarter in (0, 90, 180, 270) for angle in (30, 45, 60)])
    sides = 8 * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (12, 2)
    taken = list(points)
    for i, name in enumerate(names):
        others = np.delete(np.array(taken), i, axis=0)
        gaps = np.linalg.norm(points[i] + sides[:, None] - others, axis=2)  # (12, others)
        side = sides[np.argmin((gaps**-2).sum(axis=1))]
        taken.append(points[i] + side)
        axes.annotate(str(name), (x[i], y[i]), side, textcoords="offset points", ha="center", va="center", fontsize=7)


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


# ------------------------------------------------------------------------------------------------------ block by block


def ced_by_block(panels: Mapping[str, Scores], target: Path) -> None:
    """The signed entropy change of every block, with its standard error. ``panels``: backbone -> scores of ``ced``."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 3.0))
        for (name, ced), axes in zip(panels.items(), figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            bars(axes, ced)
            axes.set_title(name)
        explain_signs(figure)
        save(figure, target)


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


# --------------------------------------------------------------------------------------------------- block by timestep


def ced_by_timestep(panels: Mapping[str, Scores], target: Path) -> None:
    """The signed entropy change by block and timestep bin, from the data (left) to pure noise (right).

    Colours are symmetric about 0, to the largest change of the panel; bins without draws are hatched. Raises UserError
    where the scores have fewer than two bins.
    """
    with mpl.rc_context(STYLE):
        depth = max(len(ced.blocks) for ced in panels.values())
        figure = Figure(figsize=(4.6 * len(panels), 1.4 + 0.2 * depth))
        for (name, ced), axes in zip(panels.items(), figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            change = np.array(ced.per_timestep or [[]], dtype=float)  # (L, bins); None is NaN
            blocks, bins = change.shape
            if bins < 2:
                raise UserError(
                    f"figure {target.name}: {name}: {bins} timestep bins make no map; set scoring.bins to 2 or more"
                )
            largest = np.nanmax(np.abs(change), initial=0) or 1.0
            axes.patch.set(hatch="////", edgecolor="0.7", facecolor="white")
            edges, rows = np.linspace(0, 1, bins + 1), np.arange(blocks + 1) - 0.5
            cells = axes.pcolormesh(edges, rows, change, cmap=CHANGE, vmin=-largest, vmax=largest)
            axes.set_yticks(range(blocks), map(str, ced.blocks), fontsize=7)
            axes.invert_yaxis()
            axes.grid(visible=False)
            axes.set_title(name)
            axes.set_xlabel("timestep, from data (0) to noise (1)")
            axes.set_ylabel("block removed")
            bar = figure.colorbar(cells, ax=axes, pad=0.02, aspect=30)
            bar.set_label("entropy change (nats a dimension)")
            bar.outline.set_visible(False)
        save(figure, target)
