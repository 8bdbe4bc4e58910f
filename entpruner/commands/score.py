"""Score every block of a network by one criterion."""

from pathlib import Path

from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import open_store
from entpruner.layout import SCORES, TIMING
from entpruner.params.criteria import module_of
from entpruner.params.sampling import Sampling
from entpruner.process import make_process
from entpruner.rules.score import ScoreSettings
from entpruner.scores import ScoreContext, score
from entpruner.system.devices import configure
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import Recorder


def run(settings: ScoreSettings, *, store: Path, init: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder([__name__, module_of(settings.criterion)], settings, device)
    data = open_store(store)
    model, card = model_for(data, init)
    sampling = settings.sampling or Sampling()
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
        write_json(folder / SCORES, scores.to_json())
        write_json(folder / TIMING, recorder.record())
