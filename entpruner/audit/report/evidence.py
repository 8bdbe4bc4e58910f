"""The files of the audit's commands, as the chapters of its report read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.audit.regime import RegimeChoice
from entpruner.reporting.reference import Reference
from entpruner.rules.audit import AuditScope
from entpruner.system.files import read_json


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
