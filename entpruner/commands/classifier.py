"""Train the small classifier of a data set, whose features are the study's own feature net."""

from pathlib import Path

from entpruner.data.store import Store
from entpruner.evaluation.classifier import accuracy, fit, save_classifier
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.evaluation import ClassifierTraining
from entpruner.planning.memory import classifying as classifying_memory
from entpruner.system.devices import configure, require_room
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import Recorder


class Settings(Frozen):
    artefact: str
    seed: int
    training: ClassifierTraining
    compute: Compute


def run(settings: Settings, *, store: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    data = Store.open(store)
    training, splits = settings.training, {split: data.split(split) for split in ("train", "test")}
    require_room(classifying_memory(training, data.manifest.shape[-1]), settings.artefact, device)
    classifier = fit(splits["train"], training, seed=settings.seed, artefact=settings.artefact, device=device)
    accuracies = {
        f"accuracy_{split}": accuracy(classifier, images, training.batch_size) for split, images in splits.items()
    }
    with whole_folder(out) as folder:
        save_classifier(folder, classifier)
        write_json(folder / "metrics.json", accuracies)
        write_json(folder / "timing.json", recorder.record())
