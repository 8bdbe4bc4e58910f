"""The state of a training, which goes from step to step and from one pruning stage to the next."""

from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from entpruner.errors import UserError
from entpruner.layout import STATE
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import drop_blocks, renumbered_parameters
from entpruner.params.pruning import Weights
from entpruner.params.training import OptimizerName
from entpruner.system.files import intact
from entpruner.training.optimizers import Moments, first_moments


@dataclass
class TrainState:
    """Raw weights, their moving average, the state of the optimizer and the global step.

    A method of fine-tuning may have added parameters to both networks and frozen others (``training.peft``).
    ``moments`` has what the optimizer keeps of each trained parameter (``training.optimizers``).
    """

    model: BlockNetwork
    ema: BlockNetwork
    moments: dict[str, Moments]
    step: int

    @classmethod
    def start(cls, model: BlockNetwork, optimizer: OptimizerName = "adamw") -> "TrainState":
        """The state before the first step: the average is a copy of ``model``, and the moments are zero."""
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        moments = {name: first_moments(optimizer, name, parameter) for name, parameter in trained.items()}
        return cls(model, deepcopy(model), moments, step=0)

    def drop_blocks(self, drop: Collection[int]) -> "TrainState":
        """The state without these blocks (original numbering) in model, average and moments.

        The other tensors keep their bits. Raises UserError for a block that the model does not have.
        """
        old_names = renumbered_parameters(self.model, drop)
        return TrainState(
            model=drop_blocks(self.model, drop),
            ema=drop_blocks(self.ema, drop),
            moments={new: self.moments[old] for new, old in old_names.items() if old in self.moments},
            step=self.step,
        )

    def network(self, weights: Weights) -> BlockNetwork:
        """The network with the averaged or with the trained weights."""
        return self.ema if weights == "average" else self.model

    def to(self, device: torch.device) -> None:
        """Move all tensors, in place."""
        self.model.to(device)
        self.ema.to(device)
        self.moments = {name: {k: v.to(device) for k, v in kept.items()} for name, kept in self.moments.items()}

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The raw weights and the moments, by their names in ``train_state.safetensors``."""
        for name, tensor in self.model.state_dict().items():
            yield f"model.{name}", tensor
        for name, kept in self.moments.items():
            for kind, tensor in kept.items():
                yield f"{kind}.{name}", tensor

    def all_tensors(self) -> dict[str, Tensor]:
        """The raw weights, the moments, and the average by its names after ``ema.``."""
        return dict(self.named_tensors()) | {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write all but the average into an existing folder. The average is the model of this folder."""
        save_file(dict(self.named_tensors()), folder / STATE, metadata={"step": str(self.step)})

    @classmethod
    def load(cls, folder: Path, ema: BlockNetwork, optimizer: OptimizerName = "adamw") -> "TrainState":
        """The state that ``save`` wrote, with ``ema``, the model of the same folder, as the average.

        Raises UserError for a file that is unreadable or is not the state of such a network with this optimizer.
        """
        path = folder / STATE
        state = cls.start(deepcopy(ema), optimizer)
        state.ema = ema
        wanted = dict(state.named_tensors())
        try:
            with safe_open(intact(path), framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                state.step = int(file.metadata()["step"])
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise UserError(f"{path} can't be read as a training state ({error}): make it again") from error
        for name in sorted(wanted.keys() | found.keys()):
            expected, given = (tuple(t[name].shape) if name in t else "nothing" for t in (wanted, found))
            if expected != given:
                raise UserError(f"{path} doesn't fit its model: {name} should be {expected}, is {given}: make it again")
            wanted[name].copy_(found[name])  # a copy, because the alignment of a mapped file can change sums
        return state
