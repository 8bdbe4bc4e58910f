"""NTK and ZiCo of a sub-network at several numbers of samples and batches, and over independent draws of these."""

import time

from entpruner.audit.subnetworks import Blocks
from entpruner.models.network import BlockNetwork
from entpruner.params.audit import AuditedProxies
from entpruner.params.base import Frozen
from entpruner.params.proxies import Proxies
from entpruner.process import Process
from entpruner.proxies import ntk
from entpruner.proxies.measure import ProxySamples
from entpruner.proxies.zico import gradient_statistics, zico_value
from entpruner.system.devices import without_tf32


class Proxied(Frozen):
    """The proxies of one sub-network with its inherited weights, each value by setting of the sweep, then by repeat."""

    dropped: Blocks
    """The blocks that the sub-network lacks."""
    log10_kappa: tuple[tuple[float | None, ...], ...]
    """By ``samples``, by repeat; None for a rank-deficient Gram matrix."""
    zico_sum: tuple[tuple[float, ...], ...]
    """By ``batches``, by repeat, in the form that was published."""
    zico_mean: tuple[tuple[float, ...], ...]
    """From the same batches, in the form that takes the mean over layers of the mean ratio."""
    seconds: float


def proxied(
    network: BlockNetwork, process: Process, draws: list[ProxySamples], sweeps: AuditedProxies, settings: Proxies
) -> Proxied:
    """Both proxies of ``network``, a pruned one, for each of ``draws``, the repeats."""
    began = time.perf_counter()
    kappas, sums, means = [], [], []
    for samples in draws:
        with without_tf32():
            found = [ntk(network, process, *samples.ntk(n), settings.ntk, samples.signs()) for n in sweeps.samples]
            both = zico_at(network, process, samples, settings, sweeps.batches)
        kappas.append([one.log10_kappa for one in found])
        sums.append([published for published, _ in both])
        means.append([mean for _, mean in both])
    return Proxied(
        dropped=tuple(sorted(set(range(network.architecture.depth)) - set(network.kept_blocks))),
        log10_kappa=tuple(zip(*kappas, strict=True)),
        zico_sum=tuple(zip(*sums, strict=True)),
        zico_mean=tuple(zip(*means, strict=True)),
        seconds=time.perf_counter() - began,
    )


def zico_at(
    network: BlockNetwork, process: Process, samples: ProxySamples, settings: Proxies, batches: tuple[int, ...]
) -> list[tuple[float, float]]:
    """ZiCo in both forms over the first D batches, for each D, from one pass over the largest number of batches."""
    largest = settings.zico.model_copy(update={"batches": max(batches)})
    found = {}
    for count, statistics in enumerate(gradient_statistics(network, process, samples.zico(largest)), start=1):
        if count in batches:
            found[count] = (zico_value(statistics, "sum").value, zico_value(statistics, "mean").value)
    return [found[count] for count in batches]
