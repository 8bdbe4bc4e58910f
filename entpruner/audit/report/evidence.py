"""What the audit's commands wrote, for the parts of its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entpruner.reporting.reference import Reference
from entpruner.rules.audit import AuditScope
from entpruner.system.files import read_json


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
