"""The files of the audit's commands, as the chapters of its report read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.audit.regime import RegimeChoice
from entpruner.layout import WITHIN
from entpruner.reporting.records import Records
from entpruner.reporting.reference import Reference
from entpruner.rules.audit import AuditScope, FollowedArm


@dataclass(frozen=True)
class Evidence:
    """What the chapters of the report are written from."""

    records: Records
    """The JSON documents of the study, including those of the audit."""
    scope: AuditScope
    reference: Reference
    """The public numbers of the paper (``params/reference.yaml``)."""

    def by_seed(self, part: str, backbone: str) -> list[Any]:
        """The document of a part of the audit for each seed, in the order of the seeds."""
        return [self.records[WITHIN.audit(part, backbone, seed).path] for seed in self.scope.seeds]

    def followed(self, backbone: str) -> list[tuple[FollowedArm, Any]]:
        """The arms of a backbone whose stages were followed, each with the document of its stages."""
        arms = [one for one in self.scope.followed if one.arm.backbone == backbone]
        return [(one, self.records[WITHIN.audit("stages", backbone, one.arm.seed).path]) for one in arms]

    def regime(self, backbone: str) -> RegimeChoice:
        return RegimeChoice.model_validate(self.records[WITHIN.audit("regime", backbone).path])

    def timings(self) -> list[dict[str, Any]]:
        """The timing of every command of the audit. Files of seeds and backbones outside the scope are left out."""
        scope = self.scope
        names = {*scope.backbones, *(f"{backbone}-s{seed}" for backbone in scope.backbones for seed in scope.seeds)}
        found = self.records.matching(WITHIN.audit("*", "*").path)
        return [content["timing"] for path, content in found.items() if Path(path).stem in names]
