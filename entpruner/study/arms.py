"""The arms of a study: each list in an arm's spec expanded, each override merged, and the steps of its stages."""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Literal

from entpruner.params.arms import SIZED, ArmSpec, Criterion, Schedule
from entpruner.params.base import Frozen, listed, overridden
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import Pruning, blocks_to_remove, removal_grid, stage_boundaries
from entpruner.params.reporting import ArmsFigure, Effects, Table
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.study import Study
from entpruner.params.training import Finetuning


class ArmIdentity(Frozen):
    """One row of a table and one seed."""

    name: str
    label: str
    backbone: str
    process: str
    data: str
    schedule: Schedule
    criterion: Criterion | None
    ratio: float | None
    seed: int
    depth: int
    start: Literal["adapted", "pretrained"]

    @property
    def adapted(self) -> bool:
        """Whether ``adapt`` trained the network before the arm did."""
        return self.start == "adapted" and self.data != "upstream"

    @property
    def key(self) -> str:
        """The arm's folder under arms/: ``entpruner-sit-downstream-r50-s0``."""
        ratio = [] if self.ratio is None else [f"r{self.ratio * 100:.12g}"]
        return "-".join([self.name, self.backbone, self.data, *ratio, f"s{self.seed}"])


class Arm(ArmIdentity):
    """The same, with every setting resolved."""

    scores: str
    """Name of its scores: the criterion; the arm, if it scores with settings of its own; and the number of blocks to
    remove, for a criterion that chooses a set of a given size."""
    scoring: Scoring
    proxies: Proxies
    pruning: Pruning
    finetune: Finetuning
    sampling: Sampling

    @property
    def identity(self) -> ArmIdentity:
        return ArmIdentity(**{name: getattr(self, name) for name in ArmIdentity.model_fields})

    @property
    def blocks_removed(self) -> int:
        return 0 if self.ratio is None else blocks_to_remove(self.depth, self.ratio)

    @property
    def ranked_by(self) -> Criterion | None:
        """What ranks its blocks: its own criterion, or that of its monitor."""
        monitor = self.finetune.monitor
        return self.criterion if monitor is None else self.criterion or monitor.criterion

    @property
    def at_stake(self) -> int:
        """The number of blocks that go, or that its monitor votes about."""
        monitor = self.finetune.monitor
        ratio = self.ratio if monitor is None else self.ratio or monitor.ratio
        return 0 if ratio is None else blocks_to_remove(self.depth, ratio)

    @property
    def blocks_left(self) -> int:
        return self.depth - self.blocks_removed

    @property
    def stages(self) -> int:
        """Pruning decisions: none, one, or k."""
        return {"none": 0, "one_shot": 1}.get(self.schedule, self.pruning.stages)

    @property
    def grid(self) -> tuple[int, ...]:
        """Blocks removed after stage 0, 1, ..., k if every stage goes one step of the schedule."""
        return removal_grid(self.blocks_removed, self.stages, self.pruning.at if self.schedule == "delayed" else None)

    @property
    def boundaries(self) -> tuple[int, ...]:
        return stage_boundaries(self.stages, self.pruning.fraction, self.finetune.steps)


def expand(study: Study) -> dict[str, Arm]:
    """Every arm and seed of a study, by key, in the order of the file."""
    arms = {}
    for name, spec in study.arms.items():
        grid = product(listed(spec.backbone), listed(spec.data), listed(spec.ratio), spec.seeds or study.seeds)
        for backbone, data, ratio, seed in grid:
            arm = resolve(study, name, spec, backbone, data, ratio, seed)
            arms[arm.key] = arm
    return arms


def select(arms: Iterable[Arm], shown: Table | ArmsFigure | Effects) -> list[Arm]:
    """The arms that a table, a figure or effects show, in the order of its names."""

    def wanted(arm: Arm) -> bool:
        return all(allowed is None or getattr(arm, key) in (None, *allowed) for key, allowed in shown.only)

    arms = list(arms)
    return [arm for name in shown.arms for arm in arms if arm.name == name and wanted(arm)]


CLAIMED: dict[str, Callable[[Arm], bool]] = {
    "unpruned": lambda arm: arm.schedule == "none",
    "ld_pruner": lambda arm: arm.criterion == "ld_pruner",
    "entpruner": lambda arm: arm.criterion == "ced" and arm.schedule == "vote",
}


def claimed(study: Study, arms: Iterable[Arm]) -> list[tuple[str, Arm]]:
    """The arms that the paper's public numbers are about, by kind: in Tables 1 and 3, the first arm of each kind."""
    found: list[tuple[str, Arm]] = []
    for table in filter(None, map(study.tables.get, ("table1", "table3"))):
        shown = select(arms, table)
        for kind, is_of in CLAIMED.items():
            first = next((arm.name for arm in shown if is_of(arm)), None)
            found += [(kind, arm) for arm in shown if arm.name == first]
    return found


def resolve(study: Study, name: str, spec: ArmSpec, backbone: str, data: str, ratio: float | None, seed: int) -> Arm:
    sections = {section: overridden(getattr(study, section), overlay) for section, overlay in spec.override}
    arm = Arm(
        name=name,
        label=spec.label,
        backbone=backbone,
        process=study.backbones[backbone].process.kind,
        data=data,
        schedule=spec.schedule,
        criterion=spec.criterion,
        ratio=ratio,
        seed=seed,
        depth=study.backbones[backbone].blocks,
        scores="",
        start=spec.start,
        **sections,
    )
    scores: list[str] = [arm.ranked_by or "none"]
    scores += [name] if arm.scoring != study.scoring else []
    scores += [str(arm.at_stake)] if arm.at_stake and arm.ranked_by in SIZED else []
    return arm.model_copy(update={"scores": "-".join(scores)})
