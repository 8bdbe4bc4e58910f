"""A small network, its images, and its training, which a test may kill: what the tests of training share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from entpruner.data.store import ImageSet
from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Flow
from entpruner.params.compute import Compute
from entpruner.params.training import OptimizerName, Training
from entpruner.process import Process, make_process
from entpruner.system.randomness import generator
from entpruner.training.loop import train
from entpruner.training.objective import Objective, data_loss
from entpruner.training.resume import CurvePoint
from entpruner.training.state import TrainState

ARCHITECTURE = Architecture(
    depth=3, hidden_size=8, num_heads=2, patch_size=4, input_size=8, in_channels=1, num_classes=3
)
SETTINGS = Training(
    steps=9,
    batch_size=4,
    learning_rate=1e-2,
    warmup_steps=2,
    decay="cosine",
    weight_decay=0.01,
    gradient_clip=0.5,
    horizontal_flip=True,
    log_every=4,
    checkpoint_every=3,
)
CPU = Compute(device="cpu")
FLOW = make_process(Flow())
LOSS = data_loss(FLOW)
Network = TypeVar("Network", bound=nn.Module)


def drawn(model: Network, seed: int = 0, std: float = 0.3) -> Network:
    """The network with every weight drawn: those that are 0 at its start would hide what its blocks do."""
    random = generator("drawn", seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=random)
    return model


def images(count: int = 10) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count, dtype=np.int64) % 3, num_classes=3)


def new_state(optimizer: OptimizerName = "adamw") -> TrainState:
    return TrainState.start(Transformer(ARCHITECTURE).initialize(generator(0, "weights")), optimizer)


def new_state_in_float64() -> TrainState:
    """Every gradient but those that are 0 is far from 0: AdamW would blow up the rounding of those near it."""
    return TrainState.start(drawn(Transformer(ARCHITECTURE).double()))


def in_float64(model: BlockNetwork, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """FLOW's loss for a network in float64, where what differs by rounding alone hardly differs."""
    return FLOW.losses(model, x.double(), noise.double(), t, y)["loss"].mean()


def close(state: TrainState, other: TrainState) -> None:
    """The same but for rounding, of states in float64.

    The gradient of a key's bias is nothing but rounding, about 1e-17, which AdamW divides by its eps of 1e-8.
    """
    torch.testing.assert_close(dict(state.named_tensors()), dict(other.named_tensors()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.ema.state_dict(), other.ema.state_dict(), rtol=1e-9, atol=1e-9)


def run(
    state: TrainState,
    folder: Path | None,
    objective: Objective | None = None,
    settings: Training = SETTINGS,
    process: Process = FLOW,
    **changes: Any,
) -> list[CurvePoint]:
    """Train from the first step to the last, with checkpoints in ``folder``; returns the curve."""
    given = {"images": images(), "start": 0, "stop": settings.steps, "seed": 0, "artefact": "a", "compute": CPU}
    given |= {"resume_folder": folder, "fingerprint": "f", "objective": objective}
    return train(state, process, settings=settings, **given | changes)


class Hooked:
    """An objective that counts its calls, and gives what ``hook(model, calls before, loss)`` returns if not None."""

    def __init__(self, hook: Callable[[Any, int, Tensor], Any], objective: Objective = LOSS) -> None:
        self.hook, self.objective, self.calls = hook, objective, 0

    def __call__(self, model: BlockNetwork, *batch: Tensor) -> Tensor:
        loss = self.objective(model, *batch)
        changed = self.hook(model, self.calls, loss)
        self.calls += 1
        return loss if changed is None else changed


class Kill(BaseException):
    """What a signal would raise: no code catches it."""


def killed_at(call: int, objective: Objective = LOSS) -> Hooked:
    """Raises Kill at a call, counted from 0."""

    def kill(_: BlockNetwork, calls: int, __: Tensor) -> None:
        if calls == call:
            raise Kill

    return Hooked(kill, objective)


def bits(state: TrainState) -> dict[str, bytes]:
    """Every tensor of a state, its average included."""
    tensors = dict(state.named_tensors()) | {f"ema.{name}": t for name, t in state.ema.state_dict().items()}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def untimed(curve: list[CurvePoint]) -> list[dict[str, Any]]:
    """A curve without what a clock has told."""
    return [{key: value for key, value in point.items() if key != "images_per_second"} for point in curve]
