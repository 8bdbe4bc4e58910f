"""Measure the sets of blocks that the audited criteria themselves would remove, each set once."""

from functools import partial
from pathlib import Path
from typing import Unpack

from entpruner.audit.commands.bench import Audit, BenchPaths, bench_of
from entpruner.audit.criteria import block_values, chosen
from entpruner.audit.regime import RegimeChoice
from entpruner.audit.subnetworks import measured
from entpruner.rules.audit import BenchSettings
from entpruner.system.files import read_json


def run(settings: BenchSettings, *, scores: Path, out: Path, **given: Unpack[BenchPaths]) -> None:
    audit = Audit(__name__, settings, out, given, scores)
    scored = read_json(scores)
    within = RegimeChoice.model_validate(scored["regime"])
    bench = bench_of(settings, audit.context, within.regime.steps, given)
    content = {}
    for name, entry in scored["criteria"].items():
        mask = chosen(block_values(entry), within.size)
        content[name] = audit.record(str(mask), partial(measured, bench, mask, before=False))
    audit.write({"choices": content})
