"""Score every block by every audited criterion, in one process."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from entpruner.audit.commands.bench import journal_of, start_context, write_audit
from entpruner.audit.regime import RegimeChoice
from entpruner.params.arms import SIZED
from entpruner.params.audit import AuditedCriterion
from entpruner.params.criteria import module_of
from entpruner.rules.audit import ScoresSettings
from entpruner.scores import score
from entpruner.study.arms import overridden
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.recording import Recorder


def run(settings: ScoresSettings, *, store: Path, init: Path, regime: Path, out: Path) -> None:
    criteria = {audited.criterion for audited in settings.criteria.values()}
    recorder = Recorder([__name__, *map(module_of, criteria)], settings, configure(settings.compute))
    context = replace(start_context(settings, store, init), sampling=settings.sampling)
    chosen = RegimeChoice.from_json(read_json(regime))
    journal = journal_of(out, recorder, store, init, regime)

    def scored(audited: AuditedCriterion) -> Any:
        began = time.perf_counter()
        own = replace(
            context,
            settings=overridden(settings.scoring, audited.scoring),
            remove=chosen.size if audited.criterion in SIZED else None,
        )
        scores = score(audited.criterion, own)
        return {"scores": scores.to_json(), "seconds": time.perf_counter() - began}

    content = {
        name: {"audited": audited.model_dump(mode="json"), **journal.record(name, partial(scored, audited))}
        for name, audited in settings.criteria.items()
    }
    write_audit(out, {"regime": chosen.model_dump(mode="json"), "criteria": content}, recorder, journal)
