"""Move a backbone to other data: it gets new labels and some training. All arms on these data begin with it."""

from pathlib import Path

from entpruner.commands.inputs import moved_model
from entpruner.commands.training import train_into
from entpruner.data.latent_store import open_store
from entpruner.rules.pretrain import AdaptSettings
from entpruner.system.devices import configure
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder
from entpruner.training.state import TrainState


def run(settings: AdaptSettings, *, store: Path, init: Path, out: Path) -> None:
    recorder = Recorder([__name__, *settings.modules], settings, configure(settings.compute))
    random = generator(settings.seed, settings.artefact, "labels")
    model, card = moved_model(open_store(store), init, random, settings.label_table)
    state = TrainState.start(model, settings.training.optimizer)
    train_into(out, state, card, settings, recorder, store=store, init=init)
