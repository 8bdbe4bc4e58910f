"""What the audit found, one module for each chapter: its ``part(evidence)`` returns sentences, tables and figures.

To add a chapter, add its module to ``PARTS``, and the files that it reads to the inputs of the rule ``audit_report``.
"""

from collections.abc import Callable

from entpruner.audit.report import chapter_criteria, chapter_proxies, chapter_schedules, chapter_stability, claims
from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Part

PARTS: tuple[Callable[[Evidence], Part], ...] = (
    chapter_criteria.part,
    chapter_proxies.part,
    chapter_schedules.part,
    chapter_stability.part,
    claims.part,
)
