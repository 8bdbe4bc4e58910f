"""What the audit found: one module for each chapter of the report, with its sentences, tables and figures.

To add a chapter, add its module here, and the files that it reads to the inputs of the rule ``audit_report``.
"""

from collections.abc import Callable

from entpruner.audit.report import (
    chapter_claims,
    chapter_criteria,
    chapter_proxies,
    chapter_schedules,
    chapter_stability,
)
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Chapter

CHAPTERS: tuple[Callable[[Evidence], Chapter], ...] = (
    chapter_criteria.write,
    chapter_proxies.write,
    chapter_schedules.write,
    chapter_stability.write,
    chapter_claims.write,
)
