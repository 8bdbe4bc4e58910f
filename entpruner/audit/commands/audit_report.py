"""Write what the audit found: sentences, tables and figures from the files that its commands left."""

from pathlib import Path

from entpruner.audit.report import (
    chapter_checks,
    chapter_claims,
    chapter_confounds,
    chapter_criteria,
    chapter_outputs,
    chapter_proxies,
    chapter_schedules,
    chapter_stability,
    chapter_votes,
)
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.head import closing, head, opening, regime
from entpruner.audit.report.page import summary, write_report
from entpruner.layout import Layout
from entpruner.reporting.records import Records
from entpruner.reporting.reference import Reference
from entpruner.rules.audit import AuditScope
from entpruner.system.files import write_json

CHAPTERS = (
    chapter_criteria,
    chapter_proxies,
    chapter_confounds,
    chapter_schedules,
    chapter_stability,
    chapter_votes,
    chapter_outputs,
    chapter_checks,
    chapter_claims,
)
"""The chapters in their order. A new chapter also needs its files among those that the rule ``audit_report`` needs."""


def run(settings: AuditScope, *, results: Path, reference: Path, out: Path) -> None:
    evidence = Evidence(Records(results), settings, Reference.read(reference))
    chapters = [chapter.write(evidence) for chapter in CHAPTERS]
    write_json(Layout.at(results).audit_report().files["summary"], summary(chapters))
    write_report(out, opening(evidence), closing(evidence), [head(evidence), regime(evidence)], chapters)
