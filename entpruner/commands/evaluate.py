"""Measure sampled images against the real ones."""

from pathlib import Path

from entpruner.artefacts import write_json
from entpruner.commands.recording import Recorder
from entpruner.compute import configure
from entpruner.data.store import Store
from entpruner.evaluation.classifier import load_classifier
from entpruner.evaluation.extractors import classifier_net, inception_net, torchvision_net
from entpruner.evaluation.fidelity import evaluate
from entpruner.params import ClassifierExtractor, Compute, Evaluation, Frozen, InceptionExtractor


class Settings(Frozen):
    seed: int
    evaluation: Evaluation
    compute: Compute


def run(settings: Settings, *, store: Path, samples: Path, out: Path, timing: Path, classifier: Path | None) -> None:
    """``classifier`` is the folder of the data set's own, where ``evaluation.extractors`` names that."""
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    batch_size = settings.evaluation.batch_size
    nets = []
    for name, extractor in settings.evaluation.extractors.items():
        if isinstance(extractor, ClassifierExtractor):
            assert classifier is not None, "the rule hands over the classifier wherever it is an extractor"
            nets.append(classifier_net(name, load_classifier(classifier), device, batch_size))
        elif isinstance(extractor, InceptionExtractor):
            nets.append(inception_net(name, extractor, device, batch_size))
        else:
            nets.append(torchvision_net(name, extractor, device, batch_size))
    real, generated = Store.open(store).split("train"), Store.open(samples).split("samples")
    metrics = evaluate(real, generated, nets, settings.evaluation, seed=settings.seed)
    write_json(timing, recorder.record())
    write_json(out, metrics)
