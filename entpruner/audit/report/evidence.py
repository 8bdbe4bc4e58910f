"""What the audit's commands wrote, for the parts of its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from entpruner.params.base import Frozen
from entpruner.reporting.reference import Reference
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json


class ClaimedArm(Frozen):
    """An arm of the study that is of the kind that a public number of the paper is about."""

    kind: Literal["unpruned", "ld_pruner", "entpruner"]
    arm: ArmIdentity


class AuditScope(Frozen):
    """What was audited."""

    study: str
    backbones: tuple[str, ...]
    unets: tuple[str, ...] = ()
    """Those of them that are U-Nets: without proxies, and without the criteria that know transformers alone."""
    data: str
    seeds: tuple[int, ...]
    criteria: tuple[str, ...]
    """Names of the audited criteria, in the order of the tables."""
    samples: int
    imported: tuple[str, ...] = ()
    """Those of the backbones whose weights others published."""
    finetune_steps: int | None = None
    """To which the study's fine-tuning is shrunk in the audit, if it is."""
    distance: str
    """Name of the distance: fid, or fd_<extractor>."""
    claimed: tuple[ClaimedArm, ...]
    """The arms that the paper's public numbers are about."""

    @property
    def transformers(self) -> tuple[str, ...]:
        return tuple(backbone for backbone in self.backbones if backbone not in self.unets)


@dataclass(frozen=True)
class Evidence:
    """``<results>/audit/<part>/<backbone>-s<seed>.json``, and whatever else of the study a part needs."""

    results: Path
    scope: AuditScope
    reference: Reference
    """What is public of the paper."""

    def by_seed(self, part: str, backbone: str) -> list[Any]:
        """One content a seed, in the order of the seeds."""
        return [read_json(self.results / f"audit/{part}/{backbone}-s{seed}.json") for seed in self.scope.seeds]

    def regime(self, backbone: str) -> Any:
        return read_json(self.results / f"audit/regime/{backbone}.json")

    def timings(self) -> list[dict[str, Any]]:
        """Of every command of the audit, not of those left from one of other seeds or backbones."""
        scope = self.scope
        names = {*scope.backbones, *(f"{backbone}-s{seed}" for backbone in scope.backbones for seed in scope.seeds)}
        files = (file for file in sorted(self.results.glob("audit/*/*.json")) if file.stem in names)
        return [read_json(file)["timing"] for file in files]
