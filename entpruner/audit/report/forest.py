"""Intervals as a picture."""

from collections.abc import Mapping
from pathlib import Path

from entpruner.audit.statistics import Estimate
from entpruner.reporting.figures import drawing, legend_below, line_styles, panels

Panel = Mapping[str, Mapping[str, Estimate | None]]
"""Line (a criterion) -> series (a backbone) -> its estimate."""


def forest(shown: Mapping[str, Panel], label: str, target: Path, null: float = 0.0) -> None:
    """Panels side by side, all with the same lines from top to bottom; the series of a line stand close together."""
    lines = list(next(iter(shown.values())))
    names = dict.fromkeys(name for panel in shown.values() for line in panel.values() for name in line)
    styles = {
        name: {"color": style["color"], "marker": "os^D"[place % 4], "markersize": 4, "linestyle": "none"}
        for place, (name, style) in enumerate(line_styles(names).items())
    }
    with drawing(target, 3.6 * len(shown) + 1.4, 0.26 * len(lines) + 1.4) as figure:
        for title, (axes,) in panels(figure, shown, sharex=True, sharey=True).items():
            for place, (name, style) in enumerate(styles.items()):
                offset = (place - (len(styles) - 1) / 2) * 0.5 / len(styles)
                found = {height + offset: shown[title][line].get(name) for height, line in enumerate(lines)}
                known = {height: estimate for height, estimate in found.items() if estimate is not None}
                low, value, high = ([getattr(e, end) for e in known.values()] for end in ("low", "value", "high"))
                axes.hlines(list(known), low, high, color=style["color"], linewidth=1.2)
                axes.plot(value, list(known), **style)
            axes.axvline(null, color="0.4", linewidth=0.8)
            axes.set_xlabel(label)
            axes.grid(axis="y", visible=False)
            axes.set_yticks(range(len(lines)), lines)
        axes.invert_yaxis()
        legend_below(figure, styles, columns=len(styles))
