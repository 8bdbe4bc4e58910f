"""The tables and figures of a study."""

from typing import Annotated, Literal

from pydantic import Field

from entpruner.params.base import Frozen, Name, Ratio, Seed, Several


class Only(Frozen):
    """Which part of the arms' grids to show. A key that is not given leaves nothing out."""

    backbone: Several[Name] | None = None
    """The backbones to show."""
    data: Several[Name] | None = None
    """The data sets to show."""
    ratio: Several[Ratio] | None = None
    """Unpruned arms, which have no ratio, are shown anyway."""
    seed: Several[Seed] | None = None
    """The seeds to show."""


ColumnName = Literal[
    "distance_before", "distance", "motion", "over_floor", "inception_score", "kid", "precision", "recall", "agreement",
    "trained_parameters", "parameters", "macs", "speedup", "steps", "training_flops", "training_seconds",
    "kappa_first", "kappa_last", "zico_first", "zico_last", "votes", "monitoring",
]  # fmt: skip


class Table(Frozen):
    caption: str
    """The title of the table."""
    arms: Several[Name]
    """Names of arms, in the order of the rows."""
    only: Only = Only()
    """Which part of the arms' grids is shown."""
    columns: Several[ColumnName] = (
        "distance", "over_floor", "kid", "precision", "recall", "agreement",
        "parameters", "macs", "speedup", "steps", "training_flops",
    )  # fmt: skip
    """What is shown of each arm, from left to right."""


class Effects(Frozen):
    """The effect of the criterion at each schedule, and of the schedule at each criterion, over arms that cross both:
    ratios of distances, paired by seed, as one table and one figure."""

    caption: str
    """The title of the table and of the figure."""
    arms: Several[Name]
    """Names of pruned arms. The criterion and the schedule of the first are what others are compared with."""
    only: Only = Only()
    """Which part of the arms' grids takes part."""


class ScoresFigure(Frozen):
    """Entropy change against loss change on removal, a point a block (the paper's Figure 2); or CED block by block,
    with sign and error bar; or block by timestep bin."""

    kind: Literal["entropy_vs_loss", "ced_by_block", "ced_by_timestep"]
    """What the figure shows."""
    caption: str
    """The title of the figure."""
    data: Name
    """The data set that the blocks were scored on."""
    backbones: Several[Name]
    """The backbones, one panel each."""


class ArmsFigure(Frozen):
    """Training curves with the stages marked (Figure 8), samples side by side from the same noise, the blocks that
    each arm kept, the distance against the ratio, or what monitored trainings read."""

    kind: Literal["curves", "samples", "kept_blocks", "distance_vs_ratio", "monitor"]
    """What the figure shows."""
    caption: str
    """The title of the figure."""
    arms: Several[Name]
    """Names of arms, in the order in which they are shown."""
    only: Only = Only()
    """Which part of the arms' grids is shown."""


Figure = Annotated[ScoresFigure | ArmsFigure, Field(discriminator="kind")]
