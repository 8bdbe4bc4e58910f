"""Move a backbone to other data: a new label table, then some training. All arms on that data begin here."""

from pathlib import Path

from entpruner.commands.inputs import moved_model
from entpruner.commands.recording import Recorder
from entpruner.commands.training import Stretch, TrainingSettings, inputs_of, train_into
from entpruner.compute import configure
from entpruner.data.store import Store
from entpruner.randomness import generator
from entpruner.training.state import TrainState


class Settings(TrainingSettings):
    pass


def run(settings: Settings, *, store: Path, init: Path, out: Path) -> None:
    recorder = Recorder(__name__, settings, configure(settings.compute))
    model, card = moved_model(Store.open(store), init, generator(settings.seed, settings.artefact, "labels"))
    stretch = Stretch(stage=0, start=0, stop=settings.training.steps)
    fingerprint = recorder.fingerprint(*inputs_of(store, init, fresh=True))
    train_into(out, TrainState.start(model), card, store, settings, stretch, recorder, fingerprint)
