"""Rank the blocks by CED again and again: other draws, other numbers of them, other data, before and after training."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from entpruner.audit.commands.bench import journal_of, start_context, write_audit
from entpruner.audit.stability import ranking
from entpruner.audit.subnetworks import recovered, short_recovery
from entpruner.params.criteria import module_of
from entpruner.rules.audit import StabilitySettings
from entpruner.scores import ScoreContext
from entpruner.system.devices import configure
from entpruner.system.recording import Recorder


def run(settings: StabilitySettings, *, store: Path, init: Path, upstream: Path, pretrained: Path, out: Path) -> None:
    """``pretrained`` is the network that ``init`` was adapted from, ``upstream`` its data."""
    recorder = Recorder([__name__, module_of("ced")], settings, configure(settings.compute))
    adapted = start_context(settings, store, init)
    journal = journal_of(out, recorder, store, init, upstream, pretrained)

    def rankings(network: str, context: ScoreContext, draws: int) -> list[Any]:
        return [
            journal.record(f"{network} {draws} {repeat}", partial(ranked, context, draws, repeat))
            for repeat in range(settings.repeats)
        ]

    usual = settings.scoring.draws
    before = start_context(settings, upstream, pretrained)
    content = {
        "draws": {str(draws): rankings("adapted", adapted, draws) for draws in sorted({*settings.draws, usual})},
        "pretrained": rankings("pretrained", before, usual),
        "finetuned": rankings("finetuned", finetuned(adapted, settings), usual),
    }
    write_audit(out, content, recorder, journal)


def ranked(context: ScoreContext, draws: int, repeat: int) -> Any:
    return ranking(context, draws, repeat).to_json()


def finetuned(context: ScoreContext, settings: StabilitySettings) -> ScoreContext:
    """The start network after the study's fine-tuning, unpruned."""
    training = short_recovery(settings.finetune, settings.steps)
    return replace(context, model=recovered(deepcopy(context.model), context, training, settings.compute))
