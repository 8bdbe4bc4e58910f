"""What a training run carries from step to step, and from one pruning stage to the next."""

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


@dataclass
class TrainState:
    """Raw weights, their moving average, AdamW's state and the global step.

    A method of fine-tuning may have added to both networks and frozen part of them (``training.peft``). ``adam`` holds
    AdamW's tensors by name of trained parameter: ``step`` (0-d), ``exp_avg`` and ``exp_avg_sq`` (as the parameter).
    """

    model: BlockNetwork
    ema: BlockNetwork
    adam: dict[str, dict[str, Tensor]]
    step: int

    @classmethod
    def start(cls, model: BlockNetwork) -> "TrainState":
        """Before the first step: the average is a copy of ``model``, the moments are zero (as AdamW begins)."""
        adam = {
            name: {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        return cls(model, deepcopy(model), adam, step=0)

    def drop_blocks(self, drop: Collection[int]) -> "TrainState":
        """The state without these blocks (original numbering): gone from model, average and moments alike.

        What remains is kept bit for bit. Raises UserError for a block that isn't there.
        """
        old_names = renumbered_parameters(self.model, drop)
        return TrainState(
            model=drop_blocks(self.model, drop),
            ema=drop_blocks(self.ema, drop),
            adam={new: self.adam[old] for new, old in old_names.items() if old in self.adam},
            step=self.step,
        )

    def to(self, device: torch.device) -> None:
        """Move everything, in place."""
        self.model.to(device)
        self.ema.to(device)
        self.adam = {name: {k: v.to(device) for k, v in moments.items()} for name, moments in self.adam.items()}

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What ``train_state.safetensors`` holds: raw weights and moments."""
        for name, tensor in self.model.state_dict().items():
            yield f"model.{name}", tensor
        for name, moments in self.adam.items():
            for kind, tensor in moments.items():
                yield f"{kind}.{name}", tensor

    def save(self, folder: Path) -> None:
        """Write raw weights, moments and step into an existing folder; the average is the folder's own model."""
        save_file(dict(self.named_tensors()), folder / STATE, metadata={"step": str(self.step)})

    @classmethod
    def load(cls, folder: Path, ema: BlockNetwork) -> "TrainState":
        """Read back what ``save`` wrote, beside the average ``ema`` that lies in the same folder.

        Raises UserError when the file is unreadable, or isn't the state of a network like ``ema``.
        """
        path = folder / STATE
        state = cls.start(deepcopy(ema))
        state.ema = ema
        wanted = dict(state.named_tensors())
        try:
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                state.step = int(file.metadata()["step"])
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise UserError(f"{path} can't be read as a training state ({error}): make it again") from error
        for name in sorted(wanted.keys() | found.keys()):
            expected, given = (tuple(t[name].shape) if name in t else "nothing" for t in (wanted, found))
            if expected != given:
                raise UserError(f"{path} doesn't fit its model: {name} should be {expected}, is {given}: make it again")
            wanted[name].copy_(found[name])  # into our own memory: how a mapped file is aligned can change sums
        return state
