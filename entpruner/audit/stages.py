"""A pruning of the study followed from stage to stage: what its votes would have been on other samples of the proxies,
and how the proxies and the distance move."""

from collections.abc import Collection, Sequence

from entpruner.audit.votes import Way
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import kept_positions
from entpruner.params.base import Frozen
from entpruner.params.proxies import Proxies
from entpruner.process import Process
from entpruner.proxies.measure import ProxySamples
from entpruner.proxies.ntk import condition, gram_matrices
from entpruner.proxies.per_sample import take_gradients
from entpruner.proxies.zico import LossGradients
from entpruner.schedule import Decision
from entpruner.system.devices import without_tf32


class Drawn(Frozen):
    """What both proxies are for a sub-network, on one draw of their samples."""

    kappa: float | None
    """NTK's condition number. None for a Gram matrix without full rank."""
    zico_sum: float
    zico_mean: float
    """ZiCo of the same batches, as a mean over layers."""


class Redrawn(Frozen):
    """A sub-network on independent draws of the proxies' samples, which are the same for all sub-networks."""

    removed: int
    """The number of blocks of the unpruned network that it lacks."""
    draws: tuple[Drawn, ...]


class Moment(Frozen):
    """A network of the pruning, at one moment."""

    after: str
    """What it comes after: ``the start``, ``a cut``, ``a stage`` or ``recovery``."""
    stage: int
    """The stage that has just ended, or whose cut it is. The start is 0."""
    blocks: int
    """The number of blocks that it has."""
    distance: float
    """The distance of its samples to the real images, with the moving average of its weights."""
    draws: tuple[Drawn, ...]


class Vote(Frozen):
    """A vote of the pruning, and the proxies of its candidates on other draws of their samples."""

    decision: Decision
    candidates: tuple[Redrawn, ...]

    def choices(self, way: Way) -> list[int]:
        """The place of the candidate that wins on each draw, if the vote is counted in this way."""
        drawn = zip(*(candidate.draws for candidate in self.candidates), strict=True)
        return [
            way.choose([d.kappa for d in draws], [d.zico_mean if way.mean else d.zico_sum for d in draws])
            for draws in drawn
        ]


def redrawn(
    network: BlockNetwork,
    process: Process,
    draws: Sequence[ProxySamples],
    proxies: Proxies,
    dropped: Sequence[Collection[int]],
) -> list[tuple[Drawn, ...]]:
    """Both proxies of the network without each of some sets of blocks (original numbers), once with each draw."""
    candidates = [kept_positions(network.kept_blocks, drop) for drop in dropped]
    found: list[list[Drawn]] = [[] for _ in dropped]
    for samples in draws:
        grams = gram_matrices(process, *samples.ntk(proxies.ntk.samples), proxies.ntk, samples.signs())
        losses = LossGradients(process, samples.zico(proxies.zico))
        with without_tf32():
            take_gradients(network, candidates, grams, losses)
        for place, of_candidate in enumerate(found):
            kappa = condition(grams.gram(place)).kappa
            total, mean = (losses.result(place, reduction).value for reduction in ("sum", "mean"))
            of_candidate.append(Drawn(kappa=kappa, zico_sum=total, zico_mean=mean))
    return [tuple(of_candidate) for of_candidate in found]
