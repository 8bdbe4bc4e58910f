"""What all figures share: the style, panels side by side, the legend, and the PNG and SVG files.

The same input gives files with the same bytes, because the files contain no date and no random name.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from entpruner.system.files import whole_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""The palette of Okabe and Ito, which colour-blind readers can tell apart, without yellow, which is faint on white."""
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
PANEL = 4.6
"""The width of a panel in inches."""


@contextmanager
def drawing(target: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure, in inches. At the end of the block it is written to ``<target>.png`` and ``<target>.svg``."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            with whole_file(target.with_name(f"{target.name}.{suffix}")) as file:
                figure.savefig(file, format=suffix, metadata=metadata)


def panels(figure: Figure, titles: Iterable[str], rows: int = 1, **layout: Any) -> dict[str, list[Axes]]:
    """Make a column of ``rows`` axes for each distinct title. Returns title -> the axes from top to bottom."""
    names = list(dict.fromkeys(titles))
    columns = figure.subplots(rows, len(names), squeeze=False, **layout).T
    for name, column in zip(names, columns, strict=True):
        column[0].set_title(name)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def legend_below(figure: Figure, styles: Mapping[str, Mapping[str, Any]], columns: int = 2) -> None:
    """Add a legend below the figure. ``styles`` maps each label to the properties of its line or marker."""
    key = [Line2D([], [], label=label, **style) for label, style in styles.items()]
    figure.legend(handles=key, loc="outside lower center", ncols=min(len(key), columns))


def without_frame(axes: Axes) -> None:
    """Remove the grid, the tick marks and the frame of axes that show an image, and put the column labels on top."""
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The colour and dashes of the line of each label. There are 21 different combinations, after which they repeat."""
    names = dict.fromkeys(labels)
    dashes = [dash for dash in ("-", "--", ":") for _ in COLOURS]
    return {
        name: {"color": COLOURS[place % len(COLOURS)], "linestyle": dashes[place % len(dashes)]}
        for place, name in enumerate(names)
    }
