"""The samples that proxies see, and the measurement of both proxies on them for sub-networks of a network."""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from entpruner.data.store import Images
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks, kept_positions
from entpruner.params.proxies import Proxies, Zico
from entpruner.process import Process
from entpruner.proxies.ntk import NtkResult, condition, gram_matrices
from entpruner.proxies.per_sample import take_gradients
from entpruner.proxies.zico import Batch, LossGradients, ZicoResult
from entpruner.system.devices import without_tf32
from entpruner.system.randomness import generator


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
) -> Callable[[Sequence[Collection[int]]], list[tuple[NtkResult, ZicoResult]]]:
    """A function that measures both proxies of ``model`` without each of some sets of blocks, in one go.

    Blocks have their original numbers. The sub-networks keep the weights of ``model``, and all see the same samples.
    """

    def measure(dropped: Sequence[Collection[int]]) -> list[tuple[NtkResult, ZicoResult]]:
        candidates = [kept_positions(model.kept_blocks, drop) for drop in dropped]
        copy = drop_blocks(model, ()).to(samples.device)  # because the blocks of ``model`` may be compiled
        grams = gram_matrices(process, *samples.ntk(settings.ntk.samples), settings.ntk, samples.signs())
        losses = LossGradients(process, samples.zico(settings.zico))
        with without_tf32():
            take_gradients(copy, candidates, grams, losses)
        return [
            (condition(grams.gram(candidate)), losses.result(candidate, settings.zico.reduction))
            for candidate in range(len(candidates))
        ]

    return measure
