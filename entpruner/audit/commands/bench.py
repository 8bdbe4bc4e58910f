"""What the audit's commands share: the bench that sub-networks are measured on, and records that survive a kill.

Where networks work on latents they are trained, scored and asked for proxies and losses on these, from ``store``. A
distance is always between images: the real ones, from the store ``pixels``, and samples, decoded by ``autoencoder``.
"""

from pathlib import Path
from typing import Any

from entpruner.audit.subnetworks import Bench, short_recovery
from entpruner.commands.decoding import codec_for
from entpruner.commands.inputs import model_for
from entpruner.data import autoencoder as vae
from entpruner.data.latent_store import open_store
from entpruner.data.store import MANIFEST, Store
from entpruner.evaluation.extractors import feature_nets
from entpruner.models.checkpoints import CARD, WEIGHTS
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.evaluation import Evaluation
from entpruner.params.latents import Latents
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning
from entpruner.planning import memory
from entpruner.planning.memory import Memory, Shape
from entpruner.process import make_process
from entpruner.scores import ScoreContext
from entpruner.system.devices import device_of, require_room
from entpruner.system.files import write_json
from entpruner.system.journal import Journal
from entpruner.system.recording import Recorder

IDENTIFYING = (MANIFEST, CARD, WEIGHTS, vae.CONFIG, vae.WEIGHTS)
"""Files of a folder by which its content is known; a store's manifest holds the checksums of its arrays."""


class AuditSettings(Frozen):
    """Settings that every measuring command of the audit has."""

    artefact: str
    """Names the stream of random numbers, together with ``seed``: the same for all commands of a backbone."""
    seed: int
    scoring: Scoring
    compute: Compute

    def needed(self, shape: Shape) -> Memory:
        """Of a GPU, for networks of this shape: what a ranking by CED or a mean loss needs."""
        return memory.scoring(shape, "ced", self.scoring, Sampling())


class BenchSettings(AuditSettings):
    sampling: Sampling
    finetune: Finetuning
    """Shrunk to the regime's steps."""
    evaluation: Evaluation
    latents: Latents | None = None
    """What the networks work on, if not pixels."""

    def needed(self, shape: Shape) -> Memory:
        bench = memory.bench(shape, self.finetune.batch_size, self.compute, self.sampling, self.latents)
        return memory.largest([bench, super().needed(shape)])


def start_context(settings: AuditSettings, store: Path, init: Path) -> ScoreContext:
    """The start network with its images and draws, on the device. Raises UserError if the GPU is too small."""
    device = device_of(settings.compute)
    data = open_store(store)
    model, card = model_for(data, init)
    require_room(settings.needed(card.architecture), settings.artefact, device)
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


def bench_of(
    settings: BenchSettings,
    context: ScoreContext,
    store: Path,
    pixels: Path,
    classifier: Path | None,
    autoencoder: Path | None,
    steps: int,
) -> Bench:
    """What sub-networks are measured on in a regime of so many recovery steps."""
    net = feature_nets(settings.evaluation, classifier, context.device)[0]
    real = net.features(Store.open(pixels).split("train").images)
    decode = None
    if settings.latents is not None:
        assert autoencoder is not None, "the rule hands it over where there are latents"
        decode = codec_for(context.model, store, autoencoder, settings.latents, context.device).decode
    return Bench(context, net, real, short_recovery(settings.finetune, steps), settings.compute, decode)


def journal_of(out: Path, recorder: Recorder, *inputs: Path | None) -> Journal:
    """Beside the output, for what depends on settings, code and these files or folders."""
    files: list[Path] = []
    for path in filter(None, inputs):
        files += [path / name for name in IDENTIFYING if (path / name).exists()] if path.is_dir() else [path]
    return Journal(out.with_name(out.name + ".resume"), recorder.fingerprint(*files))


def write_audit(out: Path, content: dict[str, Any], recorder: Recorder, journal: Journal) -> None:
    """The whole result with its timing; the journal has served."""
    write_json(out, content | {"timing": recorder.record()})
    journal.discard()
