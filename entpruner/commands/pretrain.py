"""Train a backbone from nothing on the upstream data."""

from pathlib import Path

from entpruner.commands.training import train_into
from entpruner.data.latent_store import open_store
from entpruner.models.checkpoints import ModelCard, build
from entpruner.rules.pretrain import PretrainSettings
from entpruner.system.devices import configure
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder
from entpruner.training.state import TrainState


def run(settings: PretrainSettings, *, store: Path, out: Path) -> None:
    recorder = Recorder([__name__, *settings.modules], settings, configure(settings.compute))
    data = open_store(store)
    channels, size, _ = data.manifest.shape
    architecture = settings.backbone.architecture(size, channels, data.num_classes)
    model = build(architecture).initialize(generator(settings.seed, settings.artefact, "weights"))
    model.name_classes(data.class_names)
    card = ModelCard(
        architecture=architecture,
        kept_blocks=model.kept_blocks,
        process=settings.backbone.process,
        class_names=tuple(data.class_names),
    )
    state = TrainState.start(model, settings.training.optimizer)
    train_into(out, state, card, settings, recorder, store=store)
