"""What each rule of the workflow is: its inputs, outputs and typed settings, and what it asks of a machine.

A chapter here stands beside the chapter of the same name in ``workflow/rules``. The workflow, the forecast, the command
line and the warm process read these records. A further rule is a class in a chapter, a place in ``layout.py``, a module
in ``commands/`` and a rule in ``workflow/rules``.
"""

from entpruner.rules import audit, data, evaluate, pretrain, prune, report, score
from entpruner.rules.rule import Rule

RULES: dict[str, Rule] = {
    rule.name: rule for chapter in (data, pretrain, score, prune, evaluate, report, audit) for rule in chapter.RULES
}
"""Every rule by its name; what other rules need comes first."""
