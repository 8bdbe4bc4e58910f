"""Measure how far from Gaussian is what entropies are taken of, and the entropies by estimators that differ in this."""

from functools import partial
from pathlib import Path
from typing import Unpack

from entpruner.audit.commands.bench import Audit, StartPaths
from entpruner.audit.outputs import OUTPUTS, measured_output
from entpruner.rules.audit import OutputsSettings


def run(settings: OutputsSettings, *, out: Path, **given: Unpack[StartPaths]) -> None:
    audit = Audit(__name__, settings, out, given)
    outputs = {
        kind: audit.record(kind, partial(measured_output, kind, audit.context, settings.samples)) for kind in OUTPUTS
    }
    audit.write({"blocks": audit.context.model.kept_blocks, "outputs": outputs})
