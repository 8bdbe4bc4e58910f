"""NTK and ZiCo of the sub-networks that ``audit_masks`` measured, at several N and D, over independent draws."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from entpruner.audit.commands.bench import Audit, StartPaths
from entpruner.audit.subnetworks import Blocks
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks
from entpruner.params.base import Frozen
from entpruner.process import Process
from entpruner.proxies import ntk
from entpruner.proxies.measure import ProxySamples
from entpruner.proxies.zico import gradient_statistics, zico_value
from entpruner.rules.audit import ProxiesSettings
from entpruner.system.devices import without_tf32
from entpruner.system.files import read_json


def run(settings: ProxiesSettings, *, masks: Path, out: Path, **given: Unpack[StartPaths]) -> None:
    audit = Audit(__name__, settings, out, given, masks)
    context = audit.context
    keys = context.process, context.images, settings.seed
    repeats = range(settings.sweeps.repeats)
    draws = [ProxySamples(*keys, f"{settings.artefact}/proxies{repeat}", context.device) for repeat in repeats]

    def of(measured: dict[str, Any]) -> Any:
        dropped = tuple(measured["dropped"])
        return audit.record(str(dropped), lambda: proxied(context.model, dropped, context.process, draws, settings))

    found = read_json(masks)
    content = {
        "sweeps": settings.sweeps.model_dump(mode="json"),
        "masks": [of(mask) for mask in found["masks"]],
        "chains": [[of(mask) for mask in chain] for chain in found["chains"]],
    }
    audit.write(content)


class Proxied(Frozen):
    """The proxies of one sub-network with its inherited weights, each value by setting of the sweep, then by repeat."""

    dropped: Blocks
    """The blocks that the sub-network lacks."""
    log10_kappa: tuple[tuple[float | None, ...], ...]
    """log10 of NTK's condition number: (sizes N, repeats). None stands for a Gram matrix that lacks full rank."""
    zico_sum: tuple[tuple[float, ...], ...]
    """ZiCo as it was published, a sum over layers: (numbers of batches D, repeats)."""
    zico_mean: tuple[tuple[float, ...], ...]
    """ZiCo of the same batches as a mean over layers of the mean ratio: (numbers of batches D, repeats)."""
    seconds: float


def proxied(
    whole: BlockNetwork, dropped: Blocks, process: Process, draws: Sequence[ProxySamples], settings: ProxiesSettings
) -> Proxied:
    """Measure both proxies of ``whole`` without the blocks ``dropped``, once for each entry of ``draws``."""
    began = time.perf_counter()
    network = drop_blocks(whole, dropped)
    sizes, kappas, sums, means = settings.sweeps.samples, [], [], []
    for samples in draws:
        with without_tf32():
            found = [ntk(network, process, *samples.ntk(n), settings.proxies.ntk, samples.signs()) for n in sizes]
            both = zico_at(network, process, samples, settings)
        kappas.append([one.log10_kappa for one in found])
        sums.append([published for published, _ in both])
        means.append([mean for _, mean in both])
    return Proxied(
        dropped=dropped,
        log10_kappa=tuple(zip(*kappas, strict=True)),
        zico_sum=tuple(zip(*sums, strict=True)),
        zico_mean=tuple(zip(*means, strict=True)),
        seconds=time.perf_counter() - began,
    )


def zico_at(
    network: BlockNetwork, process: Process, samples: ProxySamples, settings: ProxiesSettings
) -> list[tuple[float, float]]:
    """ZiCo in both forms over the first D batches, for each D, from one pass over the largest number of batches."""
    asked = settings.sweeps.batches
    largest = settings.proxies.zico.model_copy(update={"batches": max(asked)})
    found = {}
    for count, statistics in enumerate(gradient_statistics(network, process, samples.zico(largest)), start=1):
        if count in asked:
            found[count] = (zico_value(statistics, "sum").value, zico_value(statistics, "mean").value)
    return [found[count] for count in asked]
