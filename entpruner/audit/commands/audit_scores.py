"""Score every block by every audited criterion, in one process."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from entpruner.audit.commands.bench import Audit, StartPaths
from entpruner.audit.regime import RegimeChoice
from entpruner.params.arms import SIZED
from entpruner.params.audit import AuditedCriterion
from entpruner.params.base import overridden
from entpruner.rules.audit import ScoresSettings
from entpruner.scores import score
from entpruner.system.files import read_json


def run(settings: ScoresSettings, *, regime: Path, out: Path, **given: Unpack[StartPaths]) -> None:
    criteria = {audited.criterion for audited in settings.criteria.values()}
    audit = Audit(__name__, settings, out, given, regime, criteria=criteria)
    chosen = RegimeChoice.model_validate(read_json(regime))

    def scored(audited: AuditedCriterion) -> Any:
        began = time.perf_counter()
        own = replace(
            audit.context,
            settings=overridden(settings.scoring, audited.scoring),
            remove=chosen.size if audited.criterion in SIZED else None,
        )
        scores = score(audited.criterion, own)
        return {"scores": scores.to_json(), "seconds": time.perf_counter() - began}

    content = {
        name: {"audited": audited.model_dump(mode="json"), **audit.journal.record(name, partial(scored, audited))}
        for name, audited in settings.criteria.items()
    }
    audit.write({"regime": chosen.model_dump(mode="json"), "criteria": content})
