"""Choose the audit's regime for a backbone by random masks alone, as ``entpruner.audit.regime`` describes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from entpruner.audit.commands.bench import Audit, BenchPaths, bench_of
from entpruner.audit.regime import choose_regime
from entpruner.audit.subnetworks import Blocks, measured, random_masks, short_recovery
from entpruner.params.audit import Regime
from entpruner.params.pruning import blocks_to_remove
from entpruner.rules.audit import RegimeSettings
from entpruner.system.randomness import generator


def run(settings: RegimeSettings, *, out: Path, **given: Unpack[BenchPaths]) -> None:
    audit, trials = Audit(__name__, settings, out, given), settings.trials
    bench = bench_of(settings, audit.context, trials.candidates[0].steps, given)
    blocks = audit.context.model.kept_blocks

    def masks(regime: Regime) -> Sequence[Blocks]:
        size = blocks_to_remove(len(blocks), regime.ratio)
        return random_masks(blocks, size, trials.masks, generator(settings.seed, settings.artefact, "trial", size))

    def distance(regime: Regime, mask: Blocks, repeat: int) -> float:
        own = replace(bench, recovery=short_recovery(settings.finetune, regime.steps))
        return audit.journal.record(
            f"{regime.ratio} {regime.steps} {mask} {repeat}",
            lambda: measured(own, mask, repeat=repeat, before=False).distance,
        )

    audit.write(choose_regime(trials, masks, distance).model_dump(mode="json"))
