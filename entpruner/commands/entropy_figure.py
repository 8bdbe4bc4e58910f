"""Figure 2: entropy change against loss change on removal, a panel a backbone."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.artefacts import read_json
from entpruner.params import Frozen
from entpruner.reporting.figures import entropy_vs_loss
from entpruner.scores import Scores


class Settings(Frozen):
    panels: tuple[str, ...]


def run(settings: Settings, *, ced: Sequence[Path], sensitivity: Sequence[Path], out: Path) -> None:
    """One file of each kind a panel; ``out`` has no suffix."""
    pairs = [
        (Scores.from_json(read_json(a)), Scores.from_json(read_json(b))) for a, b in zip(ced, sensitivity, strict=True)
    ]
    entropy_vs_loss(dict(zip(settings.panels, pairs, strict=True)), out)
