"""The samples that proxies see, and the measurement of both proxies on them for sub-networks of a network."""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from entpruner.data.store import Images
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks
from entpruner.params.proxies import Proxies, Zico
from entpruner.process import Process
from entpruner.proxies.ntk import NtkResult, ntk
from entpruner.proxies.zico import ZicoResult, zico
from entpruner.system.devices import without_tf32
from entpruner.system.randomness import generator

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""x and noise (B, C, H, W), t and y (B,)."""


class ProxySamples:
    """Batches that follow from (seed, artefact) alone, so every sub-network sees the same ones. t is stratified."""

    def __init__(self, process: Process, images: Images, seed: int, artefact: str, device: torch.device) -> None:
        self.process, self.images, self.device = process, images, device
        self.keys = (seed, artefact)

    def ntk(self, samples: int) -> Batch:
        return self.batch("ntk", samples, 0)

    def zico(self, settings: Zico) -> Iterator[Batch]:
        return (self.batch("zico", settings.batch_size, index) for index in range(settings.batches))

    def signs(self) -> torch.Generator:
        """The generator that draws the signs of the NTK's ``projection``."""
        return generator(*self.keys, "signs")

    def batch(self, name: str, count: int, index: int) -> Batch:
        random = generator(*self.keys, name, index)
        x, y = self.images.batch(torch.randperm(len(self.images), generator=random)[:count], random)
        noise = torch.randn(x.shape, generator=random)
        t = self.process.draw_times(len(x), random, stratified=True)
        return x.to(self.device), noise.to(self.device), t.to(self.device), y.to(self.device)


def measure_on(
    model: BlockNetwork, process: Process, samples: ProxySamples, settings: Proxies
) -> Callable[[Collection[int]], tuple[NtkResult, ZicoResult]]:
    """A function that measures both proxies of ``model`` without some blocks, which have their original numbers.

    The sub-networks keep the weights of ``model``, and all of them see the same samples.
    """

    def measure(dropped: Collection[int]) -> tuple[NtkResult, ZicoResult]:
        candidate = drop_blocks(model, dropped).to(samples.device)
        with without_tf32():
            return (
                ntk(candidate, process, *samples.ntk(settings.ntk.samples), settings.ntk, samples.signs()),
                zico(candidate, process, samples.zico(settings.zico), settings.zico),
            )

    return measure
