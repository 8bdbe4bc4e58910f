"""Where and how a study runs."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from entpruner.params.base import Frozen, Positive, Processes


class Compute(Frozen):
    """Where and how a study runs. This is part of each result's record."""

    AT_WILL: ClassVar[frozenset[str]] = frozenset(
        ("gpus", "nodes", "sharding", "micro_batch", "gradient_checkpointing", "compile", "gpu_memory", "mlflow")
    )
    """Keys that change how the same numbers are computed, to rounding, or not even that: a killed run may go on with
    others."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes a GPU if there is one."""
    threads: Processes = 1
    """CPU threads of a process: other counts round differently."""
    bf16: bool = True
    """bfloat16 autocast of trainings where the device is CUDA. Sampling multiplies in TF32, as the official samplers;
    scores, proxies and feature nets in full float32."""
    cpu_bf16: bool = False
    """The same where the device is the CPU, which must have instructions for bfloat16; other CPUs refuse it."""
    gpus: Processes = 1
    """GPUs that a training, a sampling or an evaluation uses on each node, with one process on each GPU. With
    ``device: cpu``, this is the number of processes. They share each batch, so they must divide it."""
    nodes: Processes = 1
    """Nodes that the same commands use. More than 1 need ``srun``, as the workflow gives them under SLURM, and a
    network that only trusted machines and users reach, because the nodes meet there without a password."""
    micro_batch: Positive | None = None
    """Images that a process trains on at once; the gradients of several such pieces add up to its share of a batch.
    Without it, its whole share."""
    sharding: Literal["none", "full"] = "none"
    """``full``: in training, each of several processes holds a part of weights, average, moments and gradients, by
    PyTorch's FSDP2, for networks that do not fit on a GPU. With ``none`` each holds all, which takes less time."""
    gradient_checkpointing: bool = False
    """In training keep only what enters each block, and compute its inside again for the backward pass: a fraction of
    the memory, for a third more time."""
    compile: bool = False
    """Compile the blocks of the networks that are trained and sampled, with torch.compile; once, as they are all alike.
    Where no compiler works, the log says why, and nothing is compiled."""
    gpu_memory: float | None = Field(None, gt=0)
    """GiB of each GPU that the study is meant for. The workflow then says at its start if something does not fit;
    without it each command asks the GPU that it runs on."""
    mlflow: str | None = Field(None, pattern=r"^https?://\S+$")
    """The address of an MLflow server, such as ``make watch`` starts: trainings send it their curves while they run.
    If it does not answer, they go on. Without an address nothing is sent."""

    @property
    def processes(self) -> int:
        """Processes of a command that several processes can share."""
        return self.gpus * self.nodes

    @property
    def alone(self) -> Self:
        """The same for a command that one process runs."""
        return self.model_copy(update={"gpus": 1, "nodes": 1})

    @property
    def settled(self) -> Self:
        """The same with the keys ``AT_WILL`` at their defaults: what results depend on."""
        return type(self)(**self.model_dump(exclude=set(self.AT_WILL)))

    def bfloat16_on(self, device: str) -> bool:
        """Whether trainings multiply in bfloat16 on this type of device."""
        return self.cpu_bf16 if device == "cpu" else self.bf16

    def at_once(self, batch_size: int) -> int:
        """Images of a batch that a process trains on at once."""
        share = batch_size // self.processes
        return min(self.micro_batch or share, share)

    def in_pieces(self, batch_size: int) -> bool:
        """Whether a process trains on its share of a batch in several pieces."""
        return self.at_once(batch_size) * self.processes < batch_size
