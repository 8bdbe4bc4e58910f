"""One stage: decide how many blocks go, drop them from weights, average and moments, and train on."""

import logging
import time
from pathlib import Path
from typing import Any

from entpruner.commands.training import inputs_of, starting_state, train_into
from entpruner.data.latent_store import open_store
from entpruner.data.store import Images
from entpruner.layout import DECISION
from entpruner.models.network import BlockNetwork
from entpruner.params.criteria import module_of
from entpruner.params.sampling import Sampling
from entpruner.process import Process, make_process
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.rules.prune import PruneSettings
from entpruner.rules.score import Ranking
from entpruner.schedule import decide
from entpruner.scores import ScoreContext, Scores, score
from entpruner.system import parallel
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder

log = logging.getLogger(__name__)


def run(settings: PruneSettings, *, store: Path, init: Path, scores: Path, teacher: Path | None, out: Path) -> None:
    """``teacher`` is the folder of the model that the arm began with, where ``training.distillation`` is set."""
    device = configure(settings.compute)
    criteria = [] if settings.rescoring is None else [settings.rescoring.criterion]
    recorder = Recorder([__name__, *map(module_of, criteria)], settings, device)
    fresh = settings.stage == 1
    data = open_store(store)
    state, card = starting_state(data, init, fresh=fresh)
    process, images = make_process(card.process), data.split("train")
    removed = state.model.architecture.depth - len(state.model.kept_blocks)

    def decided() -> dict[str, Any]:
        began = time.perf_counter()
        samples = ProxySamples(process, images, settings.seed, settings.artefact, device)
        if settings.rescoring is None:
            found = Scores.from_json(read_json(scores))
        else:
            model, remove = state.ema.to(device), settings.total - removed
            found = rescored(settings.rescoring, model, process, images, settings, remove)
        decision = decide(
            settings.schedule,
            settings.pruning,
            stage=settings.stage,
            stages=settings.stages,
            total=settings.total,
            order=found.order,
            kept=state.model.kept_blocks,
            removed=removed,
            measure=measure_on(state.model, process, samples, settings.proxies),
            random=generator(settings.seed, settings.artefact, "choice"),
        )
        rescoring = None if settings.rescoring is None else found.to_json()
        seconds = time.perf_counter() - began
        return decision.model_dump(mode="json") | {"rescored": rescoring, "seconds": seconds}

    # One process decides: measured on another GPU, proxies may differ in their last bits.
    decision = parallel.said_by_first(decided() if parallel.is_first() else None)
    state = state.drop_blocks(decision["dropped"])
    dropped = ", ".join(map(str, decision["dropped"])) or "none"
    log.info("blocks to go: %s; %d are left", dropped, len(state.model.kept_blocks))
    fingerprint = recorder.fingerprint(scores, *inputs_of(store, init, fresh=fresh, teacher=teacher))
    content = decision | {"kept_blocks": state.model.kept_blocks}
    train_into(
        out,
        state,
        card,
        store,
        settings,
        recorder,
        fingerprint,
        before=None if fresh else init,
        teacher=teacher,
        documents={DECISION: content},
    )


def rescored(
    how: Ranking, model: BlockNetwork, process: Process, images: Images, settings: PruneSettings, remove: int
) -> Scores:
    """Scores of the blocks that are left, from the averaged weights, as the first ranking's were."""
    context = ScoreContext(
        model=model,
        process=process,
        images=images,
        settings=how.scoring,
        sampling=how.sampling or Sampling(),
        seed=settings.seed,
        artefact=settings.artefact,
        device=next(model.parameters()).device,
        remove=remove,
    )
    return score(how.criterion, context)
