"""The arms of a study: rows of its tables, pruned or not."""

from typing import TYPE_CHECKING, Any, Literal

from entpruner.params.base import Frozen, Line, Name, Ratio, Seed, Several
from entpruner.params.criteria import CRITERIA

if TYPE_CHECKING:
    Criterion = str
else:
    Criterion = Literal[tuple(CRITERIA)]  # a type checker cannot know which files there are
SIZED = tuple(name for name, declared in CRITERIA.items() if declared.sized)
"""Criteria that choose a set of a given size: their order is of use for that size only."""
TRANSFORMERS_ONLY = tuple(name for name, declared in CRITERIA.items() if declared.transformers_only)
"""Criteria that cannot score a U-Net."""
IN_PARTS = tuple(name for name, declared in CRITERIA.items() if declared.in_parts)
"""Criteria that cannot score a backbone of diffusers."""
Schedule = Literal["none", "one_shot", "delayed", "linear", "vote", "random_vote"]


class Override(Frozen):
    """Keys of the study's sections that an arm changes; each is merged over the section."""

    scoring: dict[str, Any] = {}
    """Keys of the section ``scoring``."""
    proxies: dict[str, Any] = {}
    """Keys of the section ``proxies``."""
    pruning: dict[str, Any] = {}
    """Keys of the section ``pruning``."""
    finetune: dict[str, Any] = {}
    """Keys of the section ``finetune``."""
    sampling: dict[str, Any] = {}
    """Keys of the section ``sampling``."""


class ArmSpec(Frozen):
    """One row, or a grid of rows: where a list is given, one arm each."""

    label: Line
    """The name of the arm in the tables."""
    backbone: Name | Several[Name]
    """The backbone, or several: one arm each."""
    data: Name | Several[Name]
    """The data set that the arm is trained and measured on, or several: one arm each."""
    schedule: Schedule = "none"
    """How pruning is spread over the training: not at all (none), all at the first stage (one_shot) or at a later one
    (delayed), evenly over the stages (linear), as the proxies vote (vote), or as lots are drawn (random_vote)."""
    criterion: Criterion | None = None
    """What ranks the blocks. Arms that are not pruned have none."""
    ratio: Ratio | Several[Ratio] | None = None
    """The share of blocks that goes, or several shares: one arm each. Arms that are not pruned have none."""
    seeds: Several[Seed] | None = None
    """The seeds of this arm, if they are not those of the study."""
    start: Literal["adapted", "pretrained"] = "adapted"
    """Where the arm begins: at the network that ``adapt`` made, or at the pre-trained one with a new label table."""
    override: Override = Override()
    """Keys of other sections that this arm changes."""
