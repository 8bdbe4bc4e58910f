"""Choose the audit's regime for a backbone by random masks alone, before any criterion is looked at."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from entpruner.audit.commands.bench import BenchPaths, bench_of, journal_of, start_context, write_audit
from entpruner.audit.regime import choose_regime
from entpruner.audit.subnetworks import Blocks, measured, random_masks, short_recovery
from entpruner.params.audit import Regime
from entpruner.params.pruning import blocks_to_remove
from entpruner.rules.audit import RegimeSettings
from entpruner.system.devices import configure
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder


def run(
    settings: RegimeSettings,
    *,
    out: Path,
    **given: Unpack[BenchPaths],
) -> None:
    recorder = Recorder([__name__], settings, configure(settings.compute))
    context = start_context(settings, given["store"], given["init"])
    candidates = settings.trials.candidates
    bench = bench_of(settings, context, candidates[0].steps, given)
    benches = {
        regime: replace(bench, recovery=short_recovery(settings.finetune, regime.steps)) for regime in candidates
    }
    journal = journal_of(out, recorder, given)
    blocks = context.model.kept_blocks

    def masks(regime: Regime) -> Sequence[Blocks]:
        size = blocks_to_remove(len(blocks), regime.ratio)
        return random_masks(
            blocks, size, settings.trials.masks, generator(settings.seed, settings.artefact, "trial", size)
        )

    def distance(regime: Regime, mask: Blocks, repeat: int) -> float:
        return journal.record(
            f"{regime.ratio} {regime.steps} {mask} {repeat}",
            lambda: measured(benches[regime], mask, repeat=repeat, before=False).distance,
        )

    choice = choose_regime(settings.trials, masks, distance)
    write_audit(out, choice.model_dump(mode="json"), recorder, journal)
