"""Measure parameters, MACs and latency of a backbone for each number of blocks that arms of the study keep."""

from dataclasses import asdict
from pathlib import Path

from entpruner.data.latent_store import open_store
from entpruner.evaluation.cost import cost_key, latency, parameters
from entpruner.models.adapters import add_adapters
from entpruner.models.arithmetic import macs, macs_with
from entpruner.models.checkpoints import build
from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Shape
from entpruner.rules.evaluate import CostSettings
from entpruner.system.devices import configure
from entpruner.system.files import write_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Recorder


def run(settings: CostSettings, *, store: Path, out: Path) -> None:
    device = configure(settings.compute)
    recorder = Recorder([__name__], settings, device)
    data = open_store(store)
    channels, size, _ = data.manifest.shape
    architecture = settings.backbone.architecture(size, channels, data.num_classes)
    depth = architecture.depth
    networks: list[tuple[int, int | None]] = [(blocks, None) for blocks in sorted({depth, *settings.blocks})]
    networks += [(depth, width) for width in settings.adapter_widths]
    models = {cost_key(*network): untrained(architecture, *network) for network in networks}
    measured = latency(models, cost_key(depth), settings.batch_size, settings.repeats, device)
    counts = {
        key: {
            "blocks": blocks,
            "parameters": parameters(models[key]),
            "macs": macs_of(architecture, blocks, width),
            **asdict(measured[key]),
        }
        for blocks, width in networks
        for key in [cost_key(blocks, width)]
    }
    write_json(out, {"blocks": counts, "timing": recorder.record()})


def macs_of(architecture: Shape, blocks: int, adapter_width: int | None) -> int:
    """The multiply-accumulates of one image."""
    if isinstance(architecture, Architecture):
        return macs(architecture, blocks, adapter_width)
    return macs_with(architecture, range(blocks))


def untrained(architecture: Shape, blocks: int, adapter_width: int | None) -> BlockNetwork:
    """A network with random weights, which serves here because its speed does not depend on them."""
    model = build(architecture, tuple(range(blocks))).initialize(generator("cost", blocks))
    if adapter_width is not None and isinstance(model, Transformer):
        for adapter in add_adapters(model, adapter_width):
            adapter.initialize(generator("cost", blocks))
    return model
