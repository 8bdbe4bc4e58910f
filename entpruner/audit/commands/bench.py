"""What the audit's commands share: the bench that sub-networks are measured on, and records that survive a kill.

Where networks work on latents they are trained, scored and asked for proxies and losses on these, from ``store``. A
distance is always between images: the real ones, from the store ``pixels``, and samples, decoded by ``autoencoder``.
"""

from pathlib import Path
from typing import Any, TypedDict

from entpruner.audit.subnetworks import Bench, short_recovery
from entpruner.commands.decoding import codec_for
from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import open_store
from entpruner.data.store import Store
from entpruner.evaluation.extractors import feature_nets
from entpruner.layout import CARD, CODEC_CONFIG, CODEC_WEIGHTS, MANIFEST, WEIGHTS
from entpruner.params.sampling import Sampling
from entpruner.process import make_process
from entpruner.rules.audit import AuditSettings, BenchSettings
from entpruner.scores import ScoreContext
from entpruner.system.devices import device_of
from entpruner.system.files import write_json
from entpruner.system.journal import Journal
from entpruner.system.recording import Recorder

IDENTIFYING = (MANIFEST, CARD, WEIGHTS, CODEC_CONFIG, CODEC_WEIGHTS)
"""Files of a folder by which its content is known; a store's manifest holds the checksums of its arrays."""


class BenchPaths(TypedDict):
    """What the commands are given that recover and sample sub-networks."""

    store: Path
    """What the networks are trained on: images, or their latents."""
    pixels: Path
    init: Path
    classifier: Path | None
    autoencoder: Path | None


def start_context(settings: AuditSettings, store: Path, init: Path) -> ScoreContext:
    """The start network with its images and draws, on the device."""
    device = device_of(settings.compute)
    data = open_store(store)
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


def bench_of(settings: BenchSettings, context: ScoreContext, steps: int, given: BenchPaths) -> Bench:
    """What sub-networks are measured on in a regime of so many recovery steps."""
    net = feature_nets(settings.evaluation, given["classifier"], context.device)[0]
    real = net.features(Store.open(given["pixels"]).split("train").images)
    decode, autoencoder = None, given["autoencoder"]
    if settings.latents is not None:
        assert autoencoder is not None, "the rule hands it over where there are latents"
        decode = codec_for(context.model, given["store"], autoencoder, settings.latents, context.device).decode
    return Bench(context, net, real, short_recovery(settings.finetune, steps), settings.compute, decode)


def journal_of(out: Path, recorder: Recorder, *inputs: Path | BenchPaths) -> Journal:
    """The journal beside the output, for what depends on settings, code and these files or folders."""
    paths: list[Any] = [path for given in inputs for path in (given.values() if isinstance(given, dict) else [given])]
    files: list[Path] = []
    for path in filter(None, paths):
        files += [path / name for name in IDENTIFYING if (path / name).exists()] if path.is_dir() else [path]
    return Journal(out.with_name(out.name + ".resume"), recorder.fingerprint(*files))


def write_audit(out: Path, content: dict[str, Any], recorder: Recorder, journal: Journal) -> None:
    """The whole result with its timing; the journal has served."""
    write_json(out, content | {"timing": recorder.record()})
    journal.discard()
