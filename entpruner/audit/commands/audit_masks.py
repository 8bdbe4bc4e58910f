"""Measure sub-networks that no criterion chose: the whole network, each block removed, random sets, nested sets."""

from pathlib import Path
from typing import Any, Unpack

import torch

from entpruner.audit.commands.bench import BenchPaths, bench_of, journal_of, start_context, write_audit
from entpruner.audit.regime import RegimeChoice
from entpruner.audit.subnetworks import Blocks, measured, nested_masks, random_masks, single_blocks
from entpruner.params.pruning import blocks_to_remove
from entpruner.rules.audit import MasksSettings
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder


def run(
    settings: MasksSettings,
    *,
    regime: Path,
    out: Path,
    **given: Unpack[BenchPaths],
) -> None:
    recorder = Recorder([__name__], settings, configure(settings.compute))
    context = start_context(settings, given["store"], given["init"])
    chosen = RegimeChoice.from_json(read_json(regime))
    bench = bench_of(settings, context, chosen.regime.steps, given)
    journal = journal_of(out, recorder, given, regime)
    blocks = context.model.kept_blocks

    def record(mask: Blocks, before: bool) -> Any:
        name = f"{mask} {before}"
        return journal.record(name, lambda: measured(bench, mask, before=before).model_dump(mode="json"))

    def drawn(name: str) -> torch.Generator:
        return generator(settings.seed, settings.artefact, name)

    sizes = [blocks_to_remove(len(blocks), ratio) for ratio in settings.ratios]
    content = {
        "regime": chosen.model_dump(mode="json"),
        "unpruned": record((), True),
        "blocks": [record(mask, True) for mask in single_blocks(blocks)],
        "masks": [record(mask, True) for mask in random_masks(blocks, chosen.size, settings.masks, drawn("masks"))],
        "chains": [
            [record(mask, False) for mask in chain]
            for chain in nested_masks(blocks, sizes, settings.chains, drawn("chains"))
        ],
    }
    write_audit(out, content, recorder, journal)
