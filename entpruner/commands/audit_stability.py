"""Rank the blocks by CED again and again: other draws, other numbers of them, other data, before and after training."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from entpruner.audit.stability import ranking
from entpruner.audit.subnetworks import Bench, recovered
from entpruner.commands.auditing import BenchSettings, bench_of, journal_of, start_context, write_audit
from entpruner.commands.recording import Recorder
from entpruner.compute import configure
from entpruner.scores import ScoreContext


class Settings(BenchSettings):
    draws: tuple[int, ...]
    repeats: int


def run(
    settings: Settings,
    *,
    store: Path,
    init: Path,
    upstream: Path,
    pretrained: Path,
    classifier: Path | None,
    out: Path,
) -> None:
    """``pretrained`` is the network that ``init`` was adapted from, ``upstream`` its data."""
    recorder = Recorder(__name__, settings, configure(settings.compute))
    adapted = start_context(settings, store, init)
    journal = journal_of(out, recorder, store, init, classifier, upstream / "manifest.json", pretrained)

    def rankings(network: str, context: ScoreContext, draws: int) -> list[Any]:
        return [
            journal.record(f"{network} {draws} {repeat}", partial(ranked, context, draws, repeat))
            for repeat in range(settings.repeats)
        ]

    usual = settings.scoring.draws
    before = start_context(settings, upstream, pretrained)
    bench = bench_of(settings, adapted, store, classifier, settings.finetune.steps)
    content = {
        "draws": {str(draws): rankings("adapted", adapted, draws) for draws in sorted({*settings.draws, usual})},
        "pretrained": rankings("pretrained", before, usual),
        "finetuned": rankings("finetuned", finetuned(bench), usual),
    }
    write_audit(out, content, recorder, journal)


def ranked(context: ScoreContext, draws: int, repeat: int) -> Any:
    return ranking(context, draws, repeat).to_json()


def finetuned(bench: Bench) -> ScoreContext:
    """The start network after all of the study's fine-tuning, unpruned."""
    return replace(bench.context, model=recovered(deepcopy(bench.context.model), bench, repeat=0))
