"""A small scored network and its images, shared by the tests of the criteria."""

from typing import Any

import numpy as np
import torch

from entpruner.data.store import ImageSet
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Diffusion, Flow, ProcessSettings
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.process import make_process
from entpruner.scores import ScoreContext

ARCHITECTURE = Architecture(
    depth=4, hidden_size=32, num_heads=2, patch_size=2, input_size=8, in_channels=1, num_classes=3
)
PROCESSES: list[ProcessSettings] = [Diffusion(timesteps=100), Flow()]
SMALL = {
    "draws": 48, "batch_size": 16, "bins": 4, "ld_pruner_samples": 6, "masks": 5,
    "learned": {"steps": 2, "batch_size": 8},
}  # fmt: skip


def network(kept_blocks: tuple[int, ...] | None = None) -> Transformer:
    """Every weight non-zero, so that adaLN-zero hides nothing."""
    random = torch.Generator().manual_seed(1)
    model = Transformer(ARCHITECTURE, kept_blocks).initialize(random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return model


def images(n: int = 40) -> ImageSet:
    random = np.random.default_rng(2)
    return ImageSet(random.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8), np.arange(n, dtype=np.int64) % 3, 3)


def context(
    process: ProcessSettings = PROCESSES[0], model: Any = None, remove: int | None = 1, **settings: Any
) -> ScoreContext:
    return ScoreContext(
        model=network() if model is None else model,
        process=make_process(process),
        images=images(),
        settings=Scoring(**{**SMALL, **settings}),
        sampling=Sampling(guidance=1.5, diffusion={"steps": 4}, flow={"name": "euler", "steps": 4}),
        seed=0,
        artefact="scores/test",
        device=torch.device("cpu"),
        remove=remove,
    )
