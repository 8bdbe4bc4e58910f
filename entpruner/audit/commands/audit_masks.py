"""Measure sub-networks that no criterion chose: the whole network, and the network without each block, without random
sets of blocks, and without nested sets."""

from pathlib import Path
from typing import Any, Unpack

import torch

from entpruner.audit.commands.bench import Audit, BenchPaths, bench_of
from entpruner.audit.regime import RegimeChoice
from entpruner.audit.subnetworks import Blocks, measured, nested_masks, random_masks
from entpruner.params.pruning import blocks_to_remove
from entpruner.rules.audit import MasksSettings
from entpruner.system.files import read_json
from entpruner.system.randomness import generator


def run(settings: MasksSettings, *, regime: Path, out: Path, **given: Unpack[BenchPaths]) -> None:
    audit = Audit(__name__, settings, out, given, regime)
    chosen = RegimeChoice.model_validate(read_json(regime))
    bench = bench_of(settings, audit.context, chosen.regime.steps, given)
    blocks = audit.context.model.kept_blocks

    def record(mask: Blocks, before: bool) -> Any:
        return audit.record(f"{mask} {before}", lambda: measured(bench, mask, before=before))

    def drawn(name: str) -> torch.Generator:
        return generator(settings.seed, settings.artefact, name)

    sizes = [blocks_to_remove(len(blocks), ratio) for ratio in settings.ratios]
    content = {
        "regime": chosen.model_dump(mode="json"),
        "unpruned": record((), True),
        "blocks": [record((block,), True) for block in blocks],
        "masks": [record(mask, True) for mask in random_masks(blocks, chosen.size, settings.masks, drawn("masks"))],
        "chains": [
            [record(mask, False) for mask in chain]
            for chain in nested_masks(blocks, sizes, settings.chains, drawn("chains"))
        ],
    }
    audit.write(content)
