"""Move a backbone to other data: new labels, then some training. All arms on that data begin here."""

from pathlib import Path

from entpruner.commands.inputs import moved_model
from entpruner.commands.training import Stretch, TrainingSettings, inputs_of, train_into
from entpruner.data.latent_store import open_store
from entpruner.params.training import LabelTable
from entpruner.system.devices import configure
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder
from entpruner.training.state import TrainState


class Settings(TrainingSettings):
    label_table: LabelTable = "new"


def run(settings: Settings, *, store: Path, init: Path, out: Path) -> None:
    recorder = Recorder(__name__, settings, configure(settings.compute))
    random = generator(settings.seed, settings.artefact, "labels")
    model, card = moved_model(open_store(store), init, random, settings.label_table)
    stretch = Stretch(stage=0, start=0, stop=settings.training.steps)
    fingerprint = recorder.fingerprint(*inputs_of(store, init, fresh=True))
    train_into(out, TrainState.start(model), card, store, settings, stretch, recorder, fingerprint)
