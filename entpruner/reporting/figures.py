"""What all pictures share: one style, PNG and SVG, and for the same input the same bytes: no dates, no random names."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from entpruner.system.files import whole_file

# Okabe and Ito's palette, which colour-blind readers can tell apart; yellow is left out: it is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
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


def line(place: int) -> dict[str, Any]:
    """Colour and dashes of the line that comes ``place``-th in a legend: 21 that can be told apart."""
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", "--", ":")[place // len(COLOURS) % 3]}


def save(figure: Figure, target: Path) -> None:
    """``<target>.png`` and ``<target>.svg``."""
    FigureCanvasAgg(figure)
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        with whole_file(target.with_name(f"{target.name}.{suffix}")) as file:
            figure.savefig(file, format=suffix, metadata=metadata)
