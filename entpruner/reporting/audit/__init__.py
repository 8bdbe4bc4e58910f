"""What the audit found, a module a part: ``part(evidence)`` returns its sentences, tables and figures.

A further part is a further module in ``PARTS``, and its files among the inputs of the rule ``audit_report``.
"""

from collections.abc import Callable

from entpruner.reporting.audit import claims, criteria, proxies, schedules, stability
from entpruner.reporting.audit.evidence import Evidence
from entpruner.reporting.audit.page import Part

PARTS: tuple[Callable[[Evidence], Part], ...] = (
    criteria.part,
    proxies.part,
    schedules.part,
    stability.part,
    claims.part,
)
