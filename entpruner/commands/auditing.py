"""What the audit's commands share: the bench that sub-networks are measured on, and records that survive a kill."""

from pathlib import Path
from typing import Any

from entpruner.artefacts import write_json
from entpruner.audit.subnetworks import Bench, short_recovery
from entpruner.commands.inputs import model_for
from entpruner.commands.recording import Recorder
from entpruner.compute import device_of
from entpruner.data.store import MANIFEST, Store
from entpruner.evaluation.extractors import feature_nets
from entpruner.journal import Journal
from entpruner.models.checkpoints import CARD, WEIGHTS
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.evaluation import Evaluation
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning
from entpruner.process import make_process
from entpruner.scores import ScoreContext


class AuditSettings(Frozen):
    """Settings that every measuring command of the audit has."""

    artefact: str
    """Names the stream of random numbers, together with ``seed``: the same for all commands of a backbone."""
    seed: int
    scoring: Scoring
    compute: Compute


class BenchSettings(AuditSettings):
    sampling: Sampling
    finetune: Finetuning
    """Shrunk to the regime's steps."""
    evaluation: Evaluation


def start_context(settings: AuditSettings, store: Path, init: Path) -> ScoreContext:
    """The start network with its images and draws, on the device."""
    device = device_of(settings.compute)
    data = Store.open(store)
    model, card = model_for(data, init)
    return ScoreContext(
        model=model.to(device),
        process=make_process(card.process),
        images=data.split("train"),
        settings=settings.scoring,
        sampling=settings.sampling if isinstance(settings, BenchSettings) else Sampling(),
        seed=settings.seed,
        artefact=settings.artefact,
        device=device,
    )


def bench_of(settings: BenchSettings, context: ScoreContext, store: Path, classifier: Path | None, steps: int) -> Bench:
    """What sub-networks are measured on in a regime of so many recovery steps."""
    net = feature_nets(settings.evaluation, classifier, context.device)[0]
    real = net.features(Store.open(store).split("train").images)
    return Bench(context, net, real, short_recovery(settings.finetune, steps), settings.compute)


def journal_of(out: Path, recorder: Recorder, store: Path, init: Path, *others: Path | None) -> Journal:
    """Beside the output, for what depends on settings, code and these files; a classifier is given by its folder."""
    files = [store / MANIFEST, init / CARD, init / WEIGHTS]
    files += [other / WEIGHTS if other.is_dir() else other for other in others if other is not None]
    return Journal(out.with_name(out.name + ".resume"), recorder.fingerprint(*files))


def write_audit(out: Path, content: dict[str, Any], recorder: Recorder, journal: Journal) -> None:
    """The whole result with its timing; the journal has served."""
    write_json(out, content | {"timing": recorder.record()})
    journal.discard()
