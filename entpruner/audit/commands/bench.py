"""What the commands of the audit share: the start network, a bench for its sub-networks, and a journal.

Networks are trained, scored and measured by proxies and losses on ``store``, which holds images or latents. A distance
is always between images: the real ones in the store ``pixels``, and samples, which ``autoencoder`` decodes if they are
latents.
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
"""Files that identify the content of a folder. The manifest of a store holds the checksums of its arrays."""


class StartPaths(TypedDict):
    """The paths that every command is given that measures."""

    store: Path
    """The store that the networks are trained on, of images or of latents."""
    init: Path
    """The folder of the start network."""


class BenchPaths(StartPaths):
    """The paths that the commands are given that recover sub-networks and sample from them."""

    pixels: Path
    classifier: Path | None
    autoencoder: Path | None


class Audit:
    """A running command of the audit. It keeps what it has measured in a journal, so that it can go on after a kill.

    A journal is only read again with the same settings, code and input files. The input files are those of ``given``
    and ``others``.
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
        """``command`` is the name of the command's module. ``criteria`` are those by which it scores blocks."""
        self.out = out
        self.recorder = Recorder([command, *map(module_of, criteria)], settings, configure(settings.compute))
        self.context = start_context(settings, given["store"], given["init"])
        read = [path for path in (*given.values(), *others) if isinstance(path, Path)]
        files = [file for path in read for file in ([path / name for name in IDENTIFYING] if path.is_dir() else [path])]
        fingerprint = self.recorder.fingerprint(*(file for file in files if file.exists()))
        self.journal = Journal(out.with_name(out.name + ".resume"), fingerprint)

    def record(self, name: str, measure: Callable[[], Frozen]) -> Any:
        """What was measured under this name, as JSON. It is measured now if the journal has no record of it."""
        return self.journal.record(name, lambda: measure().model_dump(mode="json"))

    def write(self, content: dict[str, Any]) -> None:
        """Write the whole result with its timing, and delete the journal."""
        write_json(self.out, content | {"timing": self.recorder.record()})
        self.journal.discard()


def start_context(settings: AuditSettings, store: Path, init: Path) -> ScoreContext:
    """The network in ``init`` on the device, with the images of ``store`` and the settings of the draws."""
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
    """The bench of a regime with ``steps`` steps of recovery."""
    net = feature_nets(settings.evaluation, given["classifier"], context.device)[0]
    real = net.features(Store.open(given["pixels"]).split("train").images)
    decode, autoencoder = None, given["autoencoder"]
    if settings.latents is not None:
        assert autoencoder is not None, "a study of latents has an autoencoder"
        decode = codec_for(context.model, given["store"], autoencoder, settings.latents, context.device).decode
    return Bench(context, net, real, short_recovery(settings.finetune, steps), settings.compute, decode)
