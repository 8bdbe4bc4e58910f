"""A transformer of diffusers as a network of the workflow: scored, pruned, trained and sampled like any other.

Its condition is the name of a class, read as text. There is no text encoder: each word has a fixed random vector, which
follows from the word alone, and the transformer's own projection of text learns what it means.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from entpruner.errors import UserError
from entpruner.models import stock
from entpruner.models.embedders import LabelEmbedder
from entpruner.models.network import BlockNetwork
from entpruner.params.stock import StockArchitecture
from entpruner.system import randomness


class StockTransformer(BlockNetwork):
    """The network without its list of blocks, and the blocks. ``y_embedder`` holds the text of each class, fixed.

    Shape letters: B batch, C channels, H and W height and width, S words, D size of a word.
    """

    architecture: StockArchitecture

    def __init__(self, architecture: StockArchitecture, kept_blocks: tuple[int, ...] | None = None) -> None:
        super().__init__(architecture, kept_blocks)
        self.take(stock.build(architecture))
        self.words, self.size = architecture.words, stock.text_size(architecture)
        self.y_embedder = LabelEmbedder(architecture.num_classes, self.words * self.size).requires_grad_(False)

    def take(self, network: nn.Module) -> None:
        """Make a whole network's blocks, those that are kept, and all around them this network's own."""
        self.list = stock.list_of(network, self.architecture)
        blocks = getattr(network, self.list)
        self.blocks = nn.ModuleList(blocks[block] for block in self.kept_blocks)
        self.network = network
        stock.stand_in(network, self.list, [*self.blocks])

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        blocks: list[Any] = [*self.blocks]
        if self.checkpointing and torch.is_grad_enabled():
            again = {"use_reentrant": False, "preserve_rng_state": False}  # blocks draw nothing
            blocks = [partial(checkpoint, block, **again) for block in blocks]
        return self.with_blocks(blocks, x, t, y)

    def with_blocks(self, blocks: Sequence[Any], x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The output (B, 2C, H, W) of the network with these blocks, or functions in their place."""
        text = self.y_embedder(y).unflatten(1, (self.words, self.size))  # (B, S, D)
        stock.stand_in(self.network, self.list, blocks)
        try:
            return stock.called(self.network, self.architecture, x, t, text)
        finally:
            stock.stand_in(self.network, self.list, [*self.blocks])

    @torch.no_grad()
    def removals(self, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        """Yield (None, output of the whole network), then (i, output without block i) for every position i.

        One pass is watched. Without block i, earlier blocks repeat what they returned, and later ones are computed.
        """
        before: list[Any] = []
        keep = [stock.watching(block, lambda _, left: before.append(stock.repeating(left))) for block in self.blocks]
        yield None, self.with_blocks(keep, x_t, t, y)
        for position in range(len(before)):
            yield position, self.with_blocks([*before[:position], *self.blocks[position + 1 :]], x_t, t, y)

    @torch.no_grad()
    def visits(self, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tokens that enter and those that leave each block, (B, T, D) each, of one pass."""
        seen: list[tuple[Tensor, Tensor]] = []
        keep = [stock.watching(block, lambda *pair: seen.append(pair)) for block in self.blocks]
        self.with_blocks(keep, x_t, t, y)
        yield from seen

    def initialize(self, generator: torch.Generator) -> Self:
        """The weights are those that the class itself draws. It knows no generator, so PyTorch's own is seeded."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.take(stock.build(self.architecture))
        return self

    @torch.no_grad()
    def name_classes(self, names: Sequence[str]) -> Self:
        """Fill in the text of each class. "No class" has no words. Raises UserError for a name of too many words."""
        table = torch.zeros(len(names) + 1, self.words, self.size)
        for row, name in zip(table, names, strict=False):
            words = re.findall(r"\w+", name.lower())
            if len(words) > self.words:
                raise UserError(f"class {name!r}: {len(words)} words; allowed: diffusers.words {self.words}; raise it")
            for place, word in zip(row, words, strict=False):
                place.copy_(torch.randn(self.size, generator=randomness.generator("word", word)))
        self.y_embedder.embedding_table.weight.copy_(table.flatten(1))
        return self
