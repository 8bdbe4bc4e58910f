"""Train on after the last pruning. For an unpruned arm this is its whole fine-tuning, by any method."""

from pathlib import Path

from entpruner.commands.inputs import model_for, moved_model
from entpruner.commands.training import is_fresh, starting_state, train_into
from entpruner.data.latent_store import AnyStore, open_store
from entpruner.models.checkpoints import ModelCard
from entpruner.rules.prune import RecoverSettings
from entpruner.system.devices import configure
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder
from entpruner.training.peft import prepare
from entpruner.training.state import TrainState


def run(
    settings: RecoverSettings, *, store: Path, init: Path, scores: Path | None, teacher: Path | None, out: Path
) -> None:
    """``teacher`` is the folder of the model that the arm began with. It is needed for ``training.distillation``.
    ``scores`` has the ranking for the votes of an arm that is not pruned and monitored.
    """
    recorder = Recorder([__name__, *settings.modules], settings, configure(settings.compute))
    begun = unpruned_state if is_fresh(settings) else starting_state
    state, card = begun(settings, open_store(store), init)
    train_into(out, state, card, settings, recorder, store=store, init=init, teacher=teacher, scores=scores)


def unpruned_state(settings: RecoverSettings, data: AnyStore, init: Path) -> tuple[TrainState, ModelCard]:
    """The state that an unpruned arm's training begins with, and the card of the network that it ends as."""
    tuning = settings.training
    if settings.new_labels:
        random = generator(settings.seed, settings.artefact, "labels")
        model, card = moved_model(data, init, random, settings.label_table)
    else:
        model, card = model_for(data, init)
    prepare(model, tuning, generator(settings.seed, settings.artefact, "method"))
    if tuning.method == "adapters":
        card = card.model_copy(update={"adapter_width": tuning.adapter_width})
    return TrainState.start(model, tuning.optimizer), card
