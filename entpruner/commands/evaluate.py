"""Measure sampled images against the real ones."""

from pathlib import Path

from entpruner.data.store import Store
from entpruner.evaluation.extractors import feature_nets
from entpruner.evaluation.fidelity import evaluate
from entpruner.rules.evaluate import EvaluateSettings
from entpruner.system import parallel
from entpruner.system.devices import configure
from entpruner.system.files import write_json
from entpruner.system.recording import Recorder


def run(
    settings: EvaluateSettings, *, store: Path, samples: Path, out: Path, timing: Path, classifier: Path | None
) -> None:
    """``classifier`` is the folder of the data set's classifier, if ``evaluation.extractors`` names it."""
    device = configure(settings.compute)
    recorder = Recorder([__name__], settings, device)
    real, generated = Store.open(store).split("train"), Store.open(samples).split("samples")
    nets = feature_nets(settings.evaluation, classifier, device)
    metrics = evaluate(real, generated, nets, settings.evaluation, seed=settings.seed)
    if not parallel.is_first():
        return
    write_json(timing, recorder.record())
    write_json(out, metrics)
