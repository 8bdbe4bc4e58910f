"""Score every block of a network by one criterion."""

from pathlib import Path

from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import open_store
from entpruner.params.arms import Criterion
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.planning.memory import scoring as scoring_memory
from entpruner.process import make_process
from entpruner.scores import ScoreContext, score
from entpruner.system.devices import configure, require_room
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import Recorder


class Settings(Frozen):
    artefact: str
    seed: int
    criterion: Criterion
    scoring: Scoring
    sampling: Sampling | None = None
    """For the sampling form of LD-Pruner, which alone reads it."""
    remove: int | None = None
    """Blocks to remove, for the criteria that choose a set of that size."""
    compute: Compute


def run(settings: Settings, *, store: Path, init: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    data = open_store(store)
    model, card = model_for(data, init)
    sampling = settings.sampling or Sampling()
    needed = scoring_memory(card.architecture, settings.criterion, settings.scoring, sampling)
    require_room(needed, f"{settings.criterion} of {init}", device)
    context = ScoreContext(
        model=model.to(device),
        process=make_process(card.process),
        images=data.split("train"),
        settings=settings.scoring,
        sampling=sampling,
        seed=settings.seed,
        artefact=settings.artefact,
        device=device,
        remove=settings.remove,
    )
    scores = score(settings.criterion, context)
    with whole_folder(out) as folder:
        write_json(folder / "scores.json", scores.to_json())
        write_json(folder / "timing.json", recorder.record())
