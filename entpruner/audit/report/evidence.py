"""The files of the audit's commands, as the chapters of its report read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.audit.regime import RegimeChoice
from entpruner.layout import WITHIN
from entpruner.reporting.records import Records
from entpruner.reporting.reference import Reference
from entpruner.rules.audit import AuditScope


@dataclass(frozen=True)
class Evidence:
    """All that a chapter is written from."""

    records: Records
    """The study's documents, with those of the audit."""
    scope: AuditScope
    reference: Reference
    """The paper's numbers that are publicly known (``params/reference.yaml``)."""

    def by_seed(self, part: str, backbone: str) -> list[Any]:
        """What a part of the audit found with each seed, in the order of the seeds."""
        return [self.records[WITHIN.audit(part, backbone, seed).path] for seed in self.scope.seeds]

    def regime(self, backbone: str) -> RegimeChoice:
        return RegimeChoice.from_json(self.records[WITHIN.audit("regime", backbone).path])

    def timings(self) -> list[dict[str, Any]]:
        """The timing of every command of the audit; files left from other seeds or backbones are not among them."""
        scope = self.scope
        names = {*scope.backbones, *(f"{backbone}-s{seed}" for backbone in scope.backbones for seed in scope.seeds)}
        found = self.records.matching(WITHIN.audit("*", "*").path)
        return [content["timing"] for path, content in found.items() if Path(path).stem in names]
