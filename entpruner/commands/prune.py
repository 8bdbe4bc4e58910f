"""Do one stage: decide how many blocks go, drop them from weights, average and moments, and train on."""

import logging
import time
from pathlib import Path
from typing import Any

from entpruner.commands.score import ranked
from entpruner.commands.training import starting_state, train_into
from entpruner.data.latent_store import open_store
from entpruner.layout import DECISION
from entpruner.params.criteria import module_of
from entpruner.process import make_process
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.rules.prune import PruneSettings
from entpruner.schedule import decide
from entpruner.scores import Scores
from entpruner.system import parallel
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder

log = logging.getLogger(__name__)


def run(settings: PruneSettings, *, store: Path, init: Path, scores: Path, teacher: Path | None, out: Path) -> None:
    """``teacher`` is the folder of the model that the arm began with. It is needed for ``training.distillation``."""
    device = configure(settings.compute)
    criteria = [] if settings.rescoring is None else [settings.rescoring.criterion]
    recorder = Recorder([__name__, *map(module_of, criteria), *settings.modules], settings, device)
    data = open_store(store)
    state, card = starting_state(settings, data, init)
    process, images = make_process(card.process), data.split("train")
    removed = state.model.architecture.depth - len(state.model.kept_blocks)

    def decided() -> dict[str, Any]:
        began = time.perf_counter()
        samples = ProxySamples(process, images, settings.seed, settings.artefact, device)
        if settings.rescoring is None:
            found = Scores.from_json(read_json(scores))
        else:
            remove = settings.total - removed
            network = state.network(settings.pruning.reranked)
            found = ranked(settings.rescoring, settings, network, process, images, remove)
        decision = decide(
            settings.schedule,
            settings.pruning,
            stage=settings.stage,
            stages=settings.stages,
            total=settings.total,
            order=found.order,
            kept=state.model.kept_blocks,
            removed=removed,
            measure=measure_on(state.network(settings.pruning.proxied), process, samples, settings.proxies),
            random=generator(settings.seed, settings.artefact, "choice"),
        )
        rescoring = None if settings.rescoring is None else found.to_json()
        seconds = time.perf_counter() - began
        return decision.model_dump(mode="json") | {"rescored": rescoring, "seconds": seconds}

    # One process decides for all, because proxies that another GPU measures may differ in their last bits.
    decision = parallel.said_by_first(decided() if parallel.is_first() else None)
    state = state.drop_blocks(decision["dropped"])
    dropped = ", ".join(map(str, decision["dropped"])) or "none"
    log.info("blocks to go: %s; %d are left", dropped, len(state.model.kept_blocks))
    documents = {DECISION: decision | {"kept_blocks": state.model.kept_blocks}}
    train_into(
        out,
        state,
        card,
        settings,
        recorder,
        store=store,
        init=init,
        teacher=teacher,
        scores=scores,
        order=decision["order"],
        documents=documents,
    )
