"""Train the small classifier of a data set, which is a feature net of the study."""

from pathlib import Path

from entpruner.data.store import Store
from entpruner.evaluation.classifier import accuracy, fit, save_classifier
from entpruner.layout import METRICS, TIMING
from entpruner.rules.data import ClassifierSettings
from entpruner.system.devices import configure
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import Recorder


def run(settings: ClassifierSettings, *, store: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder([__name__], settings, device)
    data = Store.open(store)
    training, splits = settings.training, {split: data.split(split) for split in ("train", "test")}
    classifier = fit(splits["train"], training, seed=settings.seed, artefact=settings.artefact, device=device)
    accuracies = {
        f"accuracy_{split}": accuracy(classifier, images, training.batch_size) for split, images in splits.items()
    }
    with whole_folder(out) as folder:
        save_classifier(folder, classifier)
        write_json(folder / METRICS, accuracies)
        write_json(folder / TIMING, recorder.record())
