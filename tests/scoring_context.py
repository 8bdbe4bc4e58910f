"""A small scored network and its images, shared by the tests of the criteria."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entpruner.data.store import ImageSet
from entpruner.models.network import PartedNetwork
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Diffusion, Flow, ProcessSettings
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.process import Process, make_process
from entpruner.scores import ScoreContext

ARCHITECTURE = Architecture(
    depth=4, hidden_size=32, num_heads=2, patch_size=2, input_size=8, in_channels=1, num_classes=3
)
PROCESSES: list[ProcessSettings] = [Diffusion(timesteps=100), Flow()]
SMALL = {
    "draws": 48, "batch_size": 16, "bins": 4, "ld_pruner_samples": 6, "masks": 5,
    "learned": {"steps": 2, "batch_size": 8},
}  # fmt: skip


def network(kept_blocks: tuple[int, ...] | None = None, depth: int = 4) -> Transformer:
    """Every weight non-zero, so that adaLN-zero hides nothing."""
    random = torch.Generator().manual_seed(1)
    model = Transformer(ARCHITECTURE.model_copy(update={"depth": depth}), kept_blocks).initialize(random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return model


def broken(model: Transformer) -> Transformer:
    """The network with an embedding of NaN for one class of three."""
    nn.init.constant_(model.y_embedder.embedding_table.weight[1], float("nan"))
    return model


class Function(nn.Module):
    """A block that does to its tokens what it is told: (tokens, c) -> tokens."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.change(x, c)


class KnownNetwork(PartedNetwork):
    """A network of blocks whose functions are given. A subclass says what comes before and behind them."""

    def __init__(self, *changes: Callable[[Tensor, Tensor], Tensor]) -> None:
        nn.Module.__init__(self)  # no embedding, no labels
        self.blocks = nn.ModuleList(map(Function, changes))
        self.kept_blocks = tuple(range(len(changes)))


def gaussian_entropy(sigma: float) -> float:
    """In nats per dimension."""
    return 0.5 * math.log(2 * math.pi * math.e * sigma**2)


def images(n: int = 40) -> ImageSet:
    random = np.random.default_rng(2)
    return ImageSet(random.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8), np.arange(n, dtype=np.int64) % 3, 3)


def context(
    process: ProcessSettings | Process = PROCESSES[0], model: Any = None, remove: int | None = 1, **settings: Any
) -> ScoreContext:
    return ScoreContext(
        model=network() if model is None else model,
        process=make_process(process) if isinstance(process, Diffusion | Flow) else process,
        images=images(),
        settings=Scoring(**{**SMALL, **settings}),
        sampling=Sampling(guidance=1.5, diffusion={"steps": 4}, flow={"name": "euler", "steps": 4}),
        seed=0,
        artefact="scores/test",
        device=torch.device("cpu"),
        remove=remove,
    )


@torch.no_grad()
def predictions(case: ScoreContext, model: nn.Module) -> Tensor:
    """What a network predicts for all draws of a context: (N, C, H, W)."""
    return torch.cat([case.process.prediction(model(b.x_t, b.t, b.y)) for b in case.draws()])


@torch.no_grad()
def training_losses(case: ScoreContext, model: nn.Module) -> Tensor:
    """The training loss of a network for each draw of a context: (N,) float64."""
    parts = [case.process.losses(model, b.x, b.noise, b.t, b.y)["loss"] for b in case.draws()]
    return torch.cat(parts).double()
