"""A forest plot: estimates with their intervals, as a figure."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.ticker import FormatStrFormatter

from entpruner.audit.statistics import Estimate
from entpruner.reporting.figures import drawing, legend_below, line_styles, panels

Panel = Mapping[str, Mapping[str, Estimate | None]]
"""The name of a line, such as a criterion -> the name of a series, such as a backbone -> the estimate."""


def in_percent(ratio: Estimate) -> Estimate:
    """A ratio as the change in percent, so that 0 is no change."""
    return Estimate(*(100 * (end - 1) for end in (ratio.value, ratio.low, ratio.high)))


def forest(shown: Mapping[str, Panel], label: str, target: Path, ratios: bool = False) -> None:
    """Draw panels side by side, with the same lines from top to bottom. A vertical line marks 0.

    Of ``ratios`` it marks 1, and the axis is logarithmic, so that twice and half are as far from it. The series of a
    line are drawn close together, each in its own colour. ``label`` is the name of the x axis. The files are
    ``<target>.png`` and ``<target>.svg``.
    """
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
            axes.axvline(1 if ratios else 0, color="0.4", linewidth=0.8)
            if ratios:
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.set_xlabel(label)
            axes.grid(axis="y", visible=False)
            axes.set_yticks(range(len(lines)), lines)
        axes.invert_yaxis()
        legend_below(figure, styles, columns=len(styles))
