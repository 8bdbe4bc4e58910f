"""The record that every computing command writes beside its result: time, machine, settings and code."""

import hashlib
import platform
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.system import parallel
from entpruner.system.files import sha256_of
from entpruner.system.provenance import code_digest, commit


class Stopwatch:
    """Time, peak memory and machine of a command.

    ``seconds`` is the time on the clock. ``cpu_seconds`` is the computing time of all threads, which other processes
    on the machine hardly change. ``peak_memory_mb`` is the largest resident memory. In a child of the warm process
    (``warm.py``) it includes the data of the libraries that the child shares with that process, but only those pages of
    their code that the child used.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started, self.worked = time.perf_counter(), time.process_time()

    def record(self, **more: Any) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "seconds": time.perf_counter() - self.started,
            "cpu_seconds": time.process_time() - self.worked,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "peak_gpu_memory_mb": torch.cuda.max_memory_allocated(self.device) / 2**20 if cuda else 0,
            "device": torch.cuda.get_device_name(self.device) if cuda else processor_name(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            **more,
        }


def processor_name() -> str:
    """The model name of the CPU, or its architecture if the system does not tell the name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


class Recorder:
    """The record of a command. It is made when the command begins.

    ``modules`` are the module of the command and those of the criteria by which it scores blocks.
    """

    def __init__(self, modules: Sequence[str], settings: Frozen, device: torch.device) -> None:
        self.stopwatch = Stopwatch(device)
        self.settings = settings
        self.code = code_digest(*modules)

    def record(self, **more: Any) -> dict[str, Any]:
        """The content of ``timing.json``: time, machine, settings, code, and what the command adds."""
        settings = self.settings.model_dump(mode="json")
        return self.stopwatch.record(
            processes=parallel.count(), settings=settings, code=self.code, commit=commit(), **more
        )

    def fingerprint(self, *inputs: Path) -> str:
        """A digest of all that the result depends on: settings, code and the content of the input files.

        The keys ``Compute.AT_WILL``, such as the number of GPUs, are left out. A killed run may go on with others.
        """
        settings = self.settings.model_dump_json(exclude={"compute": set(Compute.AT_WILL)})
        parts = [settings, self.code, *map(sha256_of, inputs)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
