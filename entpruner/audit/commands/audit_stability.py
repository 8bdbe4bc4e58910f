"""Rank the blocks by CED with other draws and other numbers of draws, and before and after the network is trained."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from entpruner.audit.commands.bench import Audit, StartPaths, start_context
from entpruner.audit.subnetworks import recovered, short_recovery
from entpruner.rules.audit import StabilitySettings
from entpruner.scores import ScoreContext, score


def run(
    settings: StabilitySettings, *, upstream: Path, pretrained: Path, out: Path, **given: Unpack[StartPaths]
) -> None:
    """``pretrained`` is the network that ``init`` was adapted from, and ``upstream`` is the data of that network."""
    audit = Audit(__name__, settings, out, given, upstream, pretrained, criteria=["ced"])

    def rankings(network: str, context: ScoreContext, draws: int) -> list[Any]:
        return [
            audit.journal.record(f"{network} {draws} {repeat}", partial(ranking, context, draws, repeat))
            for repeat in range(settings.repeats)
        ]

    usual, adapted = settings.scoring.draws, audit.context
    before = start_context(settings, upstream, pretrained)
    content = {
        "draws": {str(draws): rankings("adapted", adapted, draws) for draws in sorted({*settings.draws, usual})},
        "pretrained": rankings("pretrained", before, usual),
        "finetuned": rankings("finetuned", finetuned(adapted, settings), usual),
    }
    audit.write(content)


def ranking(context: ScoreContext, draws: int, repeat: int) -> Any:
    """The scores by CED on ``draws`` draws. Each repeat has its own independent draws."""
    settings = context.settings.model_copy(update={"draws": draws})
    own = replace(context, settings=settings, artefact=f"{context.artefact}/repeat{repeat}")
    return score("ced", own).to_json()


def finetuned(context: ScoreContext, settings: StabilitySettings) -> ScoreContext:
    """The context with the start network after the study's fine-tuning, without any pruning."""
    training = short_recovery(settings.finetune, settings.steps)
    return replace(context, model=recovered(deepcopy(context.model), context, training, settings.compute))
