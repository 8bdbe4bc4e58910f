"""What a monitored training reads of its network: both proxies, and how a vote would go.

All readings are on the same samples, which follow from the seed alone. So the trainings of a study that have the same
images can be compared reading by reading.
"""

from collections.abc import Sequence
from pathlib import Path

from entpruner.data.store import Images
from entpruner.params.pruning import removal_grid
from entpruner.process import Process
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.rules.rule import TrainingSettings
from entpruner.schedule import Candidate, measured, vote
from entpruner.scores import Scores
from entpruner.system.devices import device_of
from entpruner.system.files import read_json
from entpruner.training.reading import Reading, Watch
from entpruner.training.state import TrainState


def watch_of(
    settings: TrainingSettings, process: Process, images: Images, scores: Path | None, order: Sequence[int] | None
) -> Watch:
    """How a monitored training is watched.

    ``order`` are the ranked blocks in the order in which they go. Without it they are ranked as the file ``scores``
    says, and without this there is no vote. The candidates of a vote are those of a stage that need not prune: the
    blocks that are there, and fewer by some steps of the grid.
    """
    asked = settings.watched
    assert asked is not None
    if order is None:
        order = () if scores is None else Scores.from_json(read_json(scores)).order
    samples = ProxySamples(process, images, settings.seed, "monitor", device_of(settings.compute))
    grid = removal_grid(asked.total if order else 0, asked.pruning.stages)

    def read(state: TrainState) -> Reading:
        network = state.network(asked.pruning.proxied)
        kept = network.kept_blocks
        still = [block for block in order if block in kept]
        removed = network.architecture.depth - len(kept)
        counts = [removed, *dict.fromkeys(count for count in grid if count > removed)][: asked.pruning.lookahead + 1]
        candidates = [Candidate(removed=count, dropped=tuple(still[: count - removed])) for count in counts]
        found = measured(candidates, measure_on(network, process, samples, asked.proxies))
        _, chosen, tied = vote(found, asked.pruning)
        return {
            "blocks": len(kept),
            "kappa": found[0].kappa,
            "zico": found[0].zico,
            "votes": found[chosen].removed - removed if len(found) > 1 else None,
            "tied": tied,
            "candidates": [candidate.model_dump(mode="json", exclude_none=True) for candidate in found],
        }

    return Watch(asked.every, read)
