"""What a training minimises, and its network and objective as one module, through which processes share the work."""

from collections.abc import Callable

from torch import Tensor, nn

from entpruner.models.network import BlockNetwork
from entpruner.process import Process

Objective = Callable[[BlockNetwork, Tensor, Tensor, Tensor, Tensor], Tensor]
"""The loss () of a batch: of model, images x (B, C, H, W), noise of the shape of x, times t (B,) and labels y (B,)."""


def data_loss(process: Process) -> Objective:
    """The mean of the process's loss over the batch."""
    return lambda model, x, noise, t, y: process.losses(model, x, noise, t, y)["loss"].mean()


class Loss(nn.Module):
    """The loss of a network on a batch, as a module.

    DistributedDataParallel and FSDP work through the ``forward`` of the module that they wrap. An objective may call
    parts of the network, as distillation does, so they wrap the objective together with the network. The parameters of
    this module are those of the network. An objective's teacher is not trained and is no part of the module.
    """

    def __init__(self, model: BlockNetwork, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, *batch: Tensor) -> Tensor:
        """The loss () of images, noise, times and labels."""
        return self.objective(self.model, *batch)
