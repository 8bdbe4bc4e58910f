"""Processes that train side by side, which the benchmark lets go on in turn: each for itself, or sharing each batch.

    python benchmarks/trainers.py ARCHITECTURE BATCH STEPS

A process trains until it is ended. Before each STEPS steps it writes a line, and waits for one.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from entpruner.models.network import BlockNetwork
from entpruner.params.backbones import Architecture, Diffusion
from entpruner.params.compute import Compute
from entpruner.params.training import Training
from entpruner.process import make_process
from entpruner.system import parallel
from entpruner.system.launch import on_loopback
from entpruner.system.warm import ADDRESS
from entpruner.training.loop import train
from entpruner.training.objective import data_loss
from entpruner.training.state import TrainState

FOREVER = 10**9  # steps


class Trainers:
    """Two processes of one thread that train a network. They share each batch, or each trains a network of its own."""

    def __init__(self, shape: Architecture, batch: int, steps: int, together: bool) -> None:
        self.folder = TemporaryDirectory(prefix="entpruner-")
        command = [sys.executable, __file__, shape.model_dump_json(), str(batch), str(steps)]
        own = {name: value for name, value in os.environ.items() if name != ADDRESS} | {"OMP_NUM_THREADS": "1"}
        if together:
            own |= on_loopback(self.folder.name) | {"TORCHELASTIC_RUN_ID": "benchmark", "WORLD_SIZE": "2"}
        pipe = subprocess.PIPE
        self.processes = [
            subprocess.Popen(command, env=own | {"RANK": str(rank)}, stdin=pipe, stdout=pipe, text=True)
            for rank in range(2)
        ]
        self._wait()

    def go_on(self) -> None:
        """Let them train for ``steps`` steps. Returns when all have done so."""
        for process in self.processes:
            process.stdin.write("\n")
            process.stdin.flush()
        self._wait()

    def cpu_seconds(self) -> float:
        """The computing time of all threads of these processes until now."""
        return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in self.processes)

    def __del__(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def _wait(self) -> None:
        for process in self.processes:
            if not process.stdout.readline():
                raise RuntimeError("a process that trains has ended: see above")


def main(shape: Architecture, batch: int, steps: int) -> None:
    from comparisons import images_like, network

    torch.set_num_threads(1)
    device = torch.device("cpu")
    parallel.join(device)
    process = make_process(Diffusion())
    own, calls = data_loss(process), 0

    def objective(model: BlockNetwork, *batch: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        if calls % steps == 0:
            print(flush=True)
            if not sys.stdin.readline():
                os._exit(0)  # the benchmark has ended
        calls += 1
        return own(model, *batch)

    train(
        TrainState.start(network(shape, device)),
        process,
        images_like(shape, 4 * batch),
        Training(steps=FOREVER, batch_size=batch, log_every=FOREVER),
        start=0,
        stop=FOREVER,
        seed=0,
        artefact="benchmark",
        compute=Compute(device="cpu", gpus=parallel.count()),
        objective=objective,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Architecture.model_validate_json(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
