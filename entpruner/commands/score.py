"""Score every block of a network by one criterion."""

from pathlib import Path

from entpruner.artefacts import whole_folder, write_json
from entpruner.commands.recording import Recorder
from entpruner.compute import configure
from entpruner.data.store import Store
from entpruner.models.checkpoints import load_model
from entpruner.params import Compute, Criterion, Frozen, Sampling, Scoring
from entpruner.process import make_process
from entpruner.scores import ScoreContext, score


class Settings(Frozen):
    artefact: str
    seed: int
    criterion: Criterion
    scoring: Scoring
    sampling: Sampling
    compute: Compute


def run(settings: Settings, *, store: Path, init: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    model, card = load_model(init)
    context = ScoreContext(
        model=model.to(device),
        process=make_process(card.process),
        images=Store.open(store).split("train"),
        settings=settings.scoring,
        sampling=settings.sampling,
        seed=settings.seed,
        artefact=settings.artefact,
        device=device,
    )
    scores = score(settings.criterion, context)
    with whole_folder(out) as folder:
        write_json(folder / "scores.json", scores.to_json())
        write_json(folder / "timing.json", recorder.record())
