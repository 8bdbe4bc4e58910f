"""The figure of monitored trainings: κ, ZiCo and the votes against the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogFormatter
from numpy.typing import NDArray

from entpruner.reporting.figures import PANEL, drawing, legend_below, line_styles, panels

OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD with momentum", "muon": "Muon"}
DECAYS = {"constant": "constant", "cosine": "cosine", "restarts": "warm restarts"}


@dataclass(frozen=True)
class Monitored:
    """The readings of one arm."""

    panel: str
    """The title of the panel. Arms with the same title share axes."""
    label: str
    readings: Sequence[Mapping[str, Any]]
    """In the order of their steps, each with step, blocks, kappa, zico and votes."""

    def values(self, key: str) -> NDArray[np.float64]:
        """The values (n,) of a key; NaN where there is none, as κ of a rank-deficient matrix or a vote of no choice."""
        return np.array([reading[key] for reading in self.readings], dtype=np.float64)


def monitored_trainings(arms: Sequence[Monitored], target: Path) -> None:
    """Draw κ, ZiCo and, in a line for each arm, the votes against the step, in a column for each title.

    Dotted lines mark the steps at which blocks were removed. A square is a vote: it is filled if the vote would have
    removed blocks, and empty if it would have removed none.
    """
    styles = line_styles(arm.label for arm in arms)
    labels = list(styles)
    titles = {arm.panel for arm in arms}
    height = 4.4 + 0.16 * len(labels)
    with drawing(target, 0.8 * PANEL * len(titles), height) as figure:
        ratios = (2, 2, 0.16 * len(labels) + 0.2)
        columns = panels(figure, (arm.panel for arm in arms), rows=3, sharex="all", sharey="row", height_ratios=ratios)
        for title, (kappas, zicos, votes) in columns.items():
            for arm in (arm for arm in arms if arm.panel == title):
                step = arm.values("step")
                kappas.plot(step, arm.values("kappa"), **styles[arm.label])
                zicos.plot(step, arm.values("zico"), **styles[arm.label])
                draw_votes(votes, arm, labels.index(arm.label), styles[arm.label]["color"])
                for cut in step[1:][np.diff(arm.values("blocks")) < 0]:
                    for axes in (kappas, zicos, votes):
                        axes.axvline(cut, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
            for axes in (kappas, zicos):
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
                axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))  # as many as have room
            votes.set_xlabel("training step")
            votes.set_yticks(range(len(labels)), labels, fontsize=7)
            votes.set_ylim(len(labels) - 0.4, -0.6)
        kappas, zicos, votes = next(iter(columns.values()))
        kappas.set_ylabel("κ of the NTK")
        zicos.set_ylabel("ZiCo")
        votes.set_ylabel("votes,\nfilled: prune")
        legend_below(figure, styles, columns=3)


def draw_votes(axes: Axes, arm: Monitored, line: int, colour: str) -> None:
    """Draw the votes of an arm as squares on a line."""
    step, votes = arm.values("step"), arm.values("votes")
    for chosen, face in ((votes > 0, colour), (votes == 0, "white")):
        axes.scatter(step[chosen], np.full(chosen.sum(), line), s=14, marker="s", color=face, edgecolors=colour)
