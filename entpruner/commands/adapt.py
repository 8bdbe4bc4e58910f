"""Move a backbone to other data: a new label table, then some training. All arms on that data begin here."""

from pathlib import Path

from entpruner.commands.recording import Recorder
from entpruner.commands.training import Stretch, TrainingSettings, inputs_of, train_into
from entpruner.compute import configure
from entpruner.data.store import Store
from entpruner.models.checkpoints import load_model
from entpruner.models.surgery import replace_label_table
from entpruner.randomness import generator
from entpruner.training.state import TrainState


class Settings(TrainingSettings):
    pass


def run(settings: Settings, *, store: Path, init: Path, out: Path) -> None:
    recorder = Recorder(__name__, settings, configure(settings.compute))
    classes = tuple(Store.open(store).class_names)
    model, card = load_model(init)
    model = replace_label_table(model, len(classes), generator(settings.seed, settings.artefact, "labels"))
    card = card.model_copy(update={"architecture": model.architecture, "class_names": classes})
    stretch = Stretch(stage=0, start=0, stop=settings.training.steps)
    fingerprint = recorder.fingerprint(*inputs_of(store, init, fresh=True))
    train_into(out, TrainState.start(model), card, store, settings, stretch, recorder, fingerprint)
