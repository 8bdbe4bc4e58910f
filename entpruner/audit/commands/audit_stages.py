"""Follow a pruning of the study by its vote: the networks that it left at every stage are measured again.

At each stage the proxies of all candidates are measured on independent draws of their samples, and the distance to the
real images right after the cut and at the end of the stage. Nothing is trained.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

from entpruner.audit.commands.bench import Audit, BenchPaths, bench_of
from entpruner.audit.stages import Drawn, Moment, Redrawn, Vote, redrawn
from entpruner.audit.subnetworks import distance
from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import open_store
from entpruner.layout import DECISION
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks
from entpruner.proxies.measure import ProxySamples
from entpruner.rules.audit import StagesSettings
from entpruner.schedule import Decision
from entpruner.system.files import read_json
from entpruner.training.state import TrainState


def run(
    settings: StagesSettings, *, stages: Sequence[Path], final: Path, out: Path, **given: Unpack[BenchPaths]
) -> None:
    """``stages`` are the folders that the stages left, in their order, and ``final`` is that of the recovery."""
    audit = Audit(__name__, settings, out, given, *stages, final)
    context, data = audit.context, open_store(given["store"])
    bench = bench_of(settings, context, settings.finetune.steps, given)
    keys = context.process, context.images, settings.seed
    draws = [
        ProxySamples(*keys, f"{settings.artefact}/redraw{number}", context.device) for number in range(settings.redraws)
    ]
    votes, moments = list[Vote](), list[Moment]()

    def average(folder: Path) -> BlockNetwork:
        return model_for(data, folder)[0].to(context.device)

    def voting(folder: Path) -> BlockNetwork:
        """The network that a later stage's vote saw: the one in ``folder``, with the weights that the settings say."""
        state = TrainState.load(folder, average(folder), settings.optimizer)
        return state.network(settings.pruning.proxied).to(context.device)

    def proxied(name: str, network: BlockNetwork, dropped: Sequence[Collection[int]]) -> list[tuple[Drawn, ...]]:
        def measure() -> list[Any]:
            of_each = redrawn(network, context.process, draws, settings.proxies, dropped)
            return [[drawn.model_dump() for drawn in found] for found in of_each]

        return [tuple(map(Drawn.model_validate, found)) for found in audit.journal.record(name, measure)]

    def reached(after: str, stage: int, network: BlockNetwork, drawn: tuple[Drawn, ...]) -> None:
        far = audit.journal.record(f"distance after {after} {stage}", lambda: distance(network, bench, repeat=0))
        moments.append(Moment(after=after, stage=stage, blocks=len(network.kept_blocks), distance=far, draws=drawn))

    for stage, (before, after) in enumerate(pairwise([given["init"], *stages]), start=1):
        whole, network = average(before), average(before) if stage == 1 else voting(before)
        decision = decision_of(after)
        voted = decision.how == "vote"
        asked = [candidate.dropped for candidate in decision.candidates] if voted else [(), decision.dropped]
        found = dict(zip(asked, proxied(f"stage {stage}", network, asked), strict=True))
        reached("the start" if stage == 1 else "a stage", stage - 1, whole, found[()])
        if decision.dropped:
            reached("a cut", stage, drop_blocks(whole, decision.dropped), found[decision.dropped])
        if voted:
            candidates = tuple(Redrawn(removed=c.removed, draws=found[c.dropped]) for c in decision.candidates)
            votes.append(Vote(decision=decision, candidates=candidates))
    last, recovered = average(stages[-1]), average(final)
    reached("a stage", len(stages), last, *proxied("the last stage", voting(stages[-1]), [()]))
    reached("recovery", len(stages), recovered, *proxied("recovery", recovered, [()]))
    audit.write(
        {
            "votes": [vote.model_dump(mode="json") for vote in votes],
            "moments": [moment.model_dump(mode="json") for moment in moments],
        }
    )


def decision_of(stage: Path) -> Decision:
    """The decision of a stage, without what else its file holds."""
    found = read_json(stage / DECISION)
    return Decision(**{name: found[name] for name in Decision.model_fields})
