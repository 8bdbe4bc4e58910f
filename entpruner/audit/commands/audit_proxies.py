"""Measure NTK and ZiCo of the sub-networks of ``audit_masks``, at several numbers of samples N and of batches D, with
independent draws of these."""

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
from entpruner.proxies.per_sample import take_gradients
from entpruner.proxies.zico import LossGradients
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
    """The proxies of one sub-network with the weights that it inherits."""

    dropped: Blocks
    """The blocks that the sub-network lacks."""
    log10_kappa: tuple[tuple[float | None, ...], ...]
    """(values of N, repeats): log10 of NTK's condition number. None for a Gram matrix without full rank."""
    zico_sum: tuple[tuple[float, ...], ...]
    """(values of D, repeats): ZiCo as it was published, a sum over layers."""
    zico_mean: tuple[tuple[float, ...], ...]
    """(values of D, repeats): ZiCo of the same batches, as a mean over layers of the mean ratio."""
    seconds: float


def proxied(
    whole: BlockNetwork, dropped: Blocks, process: Process, draws: Sequence[ProxySamples], settings: ProxiesSettings
) -> Proxied:
    """Measure both proxies of ``whole`` without the blocks ``dropped``, once with each of the independent draws."""
    began = time.perf_counter()
    network, sizes = drop_blocks(whole, dropped), settings.sweeps.samples
    kappas, sums, means = list[Any](), list[Any](), list[Any]()
    for samples in draws:
        with without_tf32():
            found = [ntk(network, process, *samples.ntk(n), settings.proxies.ntk, samples.signs()) for n in sizes]
            published, averaged = zip(*zico_at(network, process, samples, settings), strict=True)
        kappas.append([one.log10_kappa for one in found])
        sums.append(published)
        means.append(averaged)
    by_repeat = {"log10_kappa": kappas, "zico_sum": sums, "zico_mean": means}
    by_setting: dict[str, Any] = {name: tuple(zip(*values, strict=True)) for name, values in by_repeat.items()}
    return Proxied(dropped=dropped, **by_setting, seconds=time.perf_counter() - began)


def zico_at(
    network: BlockNetwork, process: Process, samples: ProxySamples, settings: ProxiesSettings
) -> list[tuple[float, float]]:
    """ZiCo as a sum and as a mean over layers, of the first D batches for each D, in one pass over the most batches."""
    asked = settings.sweeps.batches
    largest = settings.proxies.zico.model_copy(update={"batches": max(asked)})
    losses = LossGradients(process, samples.zico(largest), asked)
    take_gradients(network, [range(len(network.blocks))], losses)
    return [(losses.result(0, "sum", count).value, losses.result(0, "mean", count).value) for count in asked]
