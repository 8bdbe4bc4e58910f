"""Train on after the last pruning; for an unpruned arm, its whole fine-tuning."""

from pathlib import Path

from entpruner.commands.recording import Recorder
from entpruner.commands.training import Stretch, TrainingSettings, inputs_of, starting_state, train_into
from entpruner.compute import configure
from entpruner.data.store import Store


class Settings(TrainingSettings):
    stage: int
    """One more than the arm's pruning stages. With none before, ``init`` is the model that the arm starts from."""
    start: int
    stop: int


def run(settings: Settings, *, store: Path, init: Path, out: Path) -> None:
    recorder = Recorder(__name__, settings, configure(settings.compute))
    fresh = settings.stage == 1
    state, card = starting_state(Store.open(store), init, fresh=fresh)
    stretch = Stretch(stage=settings.stage, start=settings.start, stop=settings.stop)
    fingerprint = recorder.fingerprint(*inputs_of(store, init, fresh=fresh))
    before = None if fresh else init
    train_into(out, state, card, store, settings, stretch, recorder, fingerprint, before=before)
