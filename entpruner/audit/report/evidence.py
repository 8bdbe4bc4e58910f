"""The files of the audit's commands, as the chapters of its report read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from entpruner.audit.regime import RegimeChoice
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
    """The backbones that are U-Nets. They have no proxies, and no criteria that know transformers alone."""
    data: str
    seeds: tuple[int, ...]
    criteria: tuple[str, ...]
    """Names of the audited criteria, in the order of the tables."""
    samples: int
    """Number of images that a distance is measured on."""
    imported: tuple[str, ...] = ()
    """The backbones whose weights others published."""
    finetune_steps: int | None = None
    """Number of steps to which the audit shrinks the study's fine-tuning; None where it does not."""
    distance: str
    """Name of the distance: ``fid``, or ``fd_<extractor>``."""
    claimed: tuple[ClaimedArm, ...]
    """The arms that the paper's public numbers are about."""

    @property
    def transformers(self) -> tuple[str, ...]:
        return tuple(backbone for backbone in self.backbones if backbone not in self.unets)


@dataclass(frozen=True)
class Evidence:
    """All that a chapter is written from."""

    results: Path
    """The study's folder, with the audit's files in ``audit/<part>/<backbone>-s<seed>.json``."""
    scope: AuditScope
    reference: Reference
    """What is public of the paper."""

    def by_seed(self, part: str, backbone: str) -> list[Any]:
        """The content of one file for each seed, in the order of the seeds."""
        return [read_json(self.results / f"audit/{part}/{backbone}-s{seed}.json") for seed in self.scope.seeds]

    def regime(self, backbone: str) -> RegimeChoice:
        return RegimeChoice.from_json(read_json(self.results / f"audit/regime/{backbone}.json"))

    def timings(self) -> list[dict[str, Any]]:
        """The timing of every command of the audit; files left from other seeds or backbones are not among them."""
        scope = self.scope
        names = {*scope.backbones, *(f"{backbone}-s{seed}" for backbone in scope.backbones for seed in scope.seeds)}
        files = (file for file in sorted(self.results.glob("audit/*/*.json")) if file.stem in names)
        return [read_json(file)["timing"] for file in files]
