"""Parameters, MACs and measured latency of a backbone at each number of blocks that the study's arms keep."""

from dataclasses import asdict
from pathlib import Path

from entpruner.artefacts import write_json
from entpruner.commands.recording import Recorder
from entpruner.compute import configure
from entpruner.data.store import Store
from entpruner.evaluation.cost import latency, macs, parameters
from entpruner.models.transformer import Transformer
from entpruner.params import Backbone, Compute, Frozen
from entpruner.randomness import generator


class Settings(Frozen):
    backbone: Backbone
    blocks: tuple[int, ...]
    batch_size: int
    repeats: int
    compute: Compute


def run(settings: Settings, *, store: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder(__name__, settings, device)
    data = Store.open(store)
    channels, size, _ = data.manifest.shape
    architecture = settings.backbone.architecture(size, channels, data.num_classes)
    models = {  # time does not depend on the weights
        blocks: Transformer(architecture, tuple(range(blocks))).initialize(generator("cost", blocks))
        for blocks in sorted({architecture.depth, *settings.blocks})
    }
    measured = latency(models, settings.batch_size, settings.repeats, device)
    counts = {
        str(blocks): {"parameters": parameters(model), "macs": macs(architecture, blocks), **asdict(measured[blocks])}
        for blocks, model in models.items()
    }
    write_json(out, {"blocks": counts, "timing": recorder.record()})
