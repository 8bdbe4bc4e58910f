"""What the audit found, a module a part: ``part(evidence)`` returns its sentences, tables and figures.

A further part is a further module in ``PARTS``, and its files among the inputs of the rule ``audit_report``.
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
