"""Measure the sets of blocks that the audited criteria themselves would remove, each set once."""

from pathlib import Path
from typing import Any, Unpack

from entpruner.audit.commands.bench import BenchPaths, bench_of, journal_of, start_context, write_audit
from entpruner.audit.criteria import block_values, chosen
from entpruner.audit.regime import RegimeChoice
from entpruner.audit.subnetworks import Blocks, measured
from entpruner.params.audit import AuditedCriterion
from entpruner.rules.audit import BenchSettings
from entpruner.scores import Scores
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.recording import Recorder


def run(
    settings: BenchSettings,
    *,
    scores: Path,
    out: Path,
    **given: Unpack[BenchPaths],
) -> None:
    recorder = Recorder([__name__], settings, configure(settings.compute))
    context = start_context(settings, given["store"], given["init"])
    scored = read_json(scores)
    within = RegimeChoice.from_json(scored["regime"])
    bench = bench_of(settings, context, within.regime.steps, given)
    journal = journal_of(out, recorder, given, scores)

    def record(mask: Blocks) -> Any:
        return journal.record(str(mask), lambda: measured(bench, mask, before=False).model_dump(mode="json"))

    content = {}
    for name, entry in scored["criteria"].items():
        values = block_values(Scores.from_json(entry["scores"]), AuditedCriterion(**entry["audited"]))
        content[name] = record(chosen(values, within.size))
    write_audit(out, {"choices": content}, recorder, journal)
