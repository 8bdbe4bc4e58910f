"""What the commands of the audit share: the start network, a bench for its sub-networks, and a journal.

Where networks work on latents they are trained, scored and asked for proxies and losses on these, from ``store``. A
distance is always between images: the real ones, from the store ``pixels``, and samples, decoded by ``autoencoder``.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypedDict

from entpruner.audit.subnetworks import Bench, short_recovery
from entpruner.commands.decoding import codec_for
from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import open_store
from entpruner.data.store import Store
from entpruner.evaluation.extractors import feature_nets
from entpruner.layout import CARD, CODEC_CONFIG, CODEC_WEIGHTS, MANIFEST, WEIGHTS
from entpruner.params.arms import Criterion
from entpruner.params.base import Frozen
from entpruner.params.criteria import module_of
from entpruner.params.sampling import Sampling
from entpruner.process import make_process
from entpruner.rules.audit import AuditSettings, BenchSettings
from entpruner.scores import ScoreContext
from entpruner.system.devices import configure, device_of
from entpruner.system.files import write_json
from entpruner.system.journal import Journal
from entpruner.system.recording import Recorder

IDENTIFYING = (MANIFEST, CARD, WEIGHTS, CODEC_CONFIG, CODEC_WEIGHTS)
"""Files of a folder by which its content is known; a store's manifest holds the checksums of its arrays."""


class StartPaths(TypedDict):
    """What every measuring command of the audit is given."""

    store: Path
    """What the networks are trained on: images, or their latents."""
    init: Path
    """The folder of the start network."""


class BenchPaths(StartPaths):
    """What the commands are given that recover and sample sub-networks."""

    pixels: Path
    classifier: Path | None
    autoencoder: Path | None


class Audit:
    """A command of the audit at work. What it has finished stands in a journal, so that a killed command goes on.

    The journal depends on the settings, the code and all files that the command reads: those ``given`` and ``others``.
    """

    def __init__(
        self,
        command: str,
        settings: AuditSettings,
        out: Path,
        given: StartPaths,
        *others: Path,
        criteria: Collection[Criterion] = (),
    ) -> None:
        """``command`` is the name of the command's module; ``criteria`` are those by which it scores blocks."""
        self.out = out
        self.recorder = Recorder([command, *map(module_of, criteria)], settings, configure(settings.compute))
        self.context = start_context(settings, given["store"], given["init"])
        read = [path for path in (*given.values(), *others) if isinstance(path, Path)]
        files = [file for path in read for file in ([path / name for name in IDENTIFYING] if path.is_dir() else [path])]
        fingerprint = self.recorder.fingerprint(*(file for file in files if file.exists()))
        self.journal = Journal(out.with_name(out.name + ".resume"), fingerprint)

    def record(self, name: str, measure: Callable[[], Frozen]) -> Any:
        """What was measured under this name, as JSON: the journal's record, or else what is measured now."""
        return self.journal.record(name, lambda: measure().model_dump(mode="json"))

    def write(self, content: dict[str, Any]) -> None:
        """Write the whole result with its timing; the journal has served."""
        write_json(self.out, content | {"timing": self.recorder.record()})
        self.journal.discard()


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
        sampling=getattr(settings, "sampling", Sampling()),
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
