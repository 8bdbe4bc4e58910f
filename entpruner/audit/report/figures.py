"""Intervals as pictures, in the one style of ``reporting/figures.py``."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from entpruner.audit.statistics import Estimate
from entpruner.reporting.figures import COLOURS, STYLE, save

Panel = Mapping[str, Mapping[str, Estimate | None]]
"""Line (a criterion) -> series (a backbone) -> its estimate."""


def forest(panels: Mapping[str, Panel], label: str, target: Path, null: float = 0.0) -> None:
    """Panels side by side, with the same lines from top to bottom; the series of a line stand close together."""
    lines = list(next(iter(panels.values())))
    series = list(dict.fromkeys(name for panel in panels.values() for line in panel.values() for name in line))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(panels) + 1.4, 0.26 * len(lines) + 1.4))
        axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for (title, panel), axis in zip(panels.items(), axes, strict=True):
            for place, name in enumerate(series):
                offset = (place - (len(series) - 1) / 2) * 0.5 / len(series)
                found = [(i, panel[line].get(name)) for i, line in enumerate(lines)]
                known = [(i + offset, estimate) for i, estimate in found if estimate is not None]
                axis.errorbar(
                    [estimate.value for _, estimate in known],
                    [height for height, _ in known],
                    xerr=[
                        [max(e.value - e.low, 0) for _, e in known],  # a percentile interval need not hold its value
                        [max(e.high - e.value, 0) for _, e in known],
                    ],
                    fmt="os^D"[place % 4],
                    color=COLOURS[place % len(COLOURS)],
                    markersize=4,
                    elinewidth=1.2,
                    label=name,
                )
            axis.axvline(null, color="0.4", linewidth=0.8)
            axis.set_title(title)
            axis.set_xlabel(label)
            axis.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(lines)), lines)
        axes[0].invert_yaxis()
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(series))
        save(figure, target)
