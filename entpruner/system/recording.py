"""What every computing command writes beside its result: time, machine, settings, code."""

import hashlib
import platform
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.system import parallel
from entpruner.system.files import sha256_of
from entpruner.system.provenance import code_digest, commit


class Stopwatch:
    """Time, peak memory and machine of one command: the content of its ``timing.json``.

    ``seconds`` are the clock's; ``cpu_seconds`` are those of all threads at work, whatever else the machine was doing.
    The memory is what was resident at most: in a child of the warm process (``warm.py``) with the libraries' data that
    it shares, and without those pages of their code that it never touched.
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
    """The CPU's model name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Recorder:
    """Made when a command begins; ``record`` is the content of its ``timing.json``.

    ``modules`` are the command's own, and those of the criteria by which it scores blocks.
    """

    def __init__(self, modules: Sequence[str], settings: Frozen, device: torch.device) -> None:
        self.stopwatch = Stopwatch(device)
        self.settings = settings
        self.code = code_digest(*modules)

    def record(self, **more: Any) -> dict[str, Any]:
        settings = self.settings.model_dump(mode="json")
        return self.stopwatch.record(
            processes=parallel.count(), settings=settings, code=self.code, commit=commit(), **more
        )

    def fingerprint(self, *inputs: Path) -> str:
        """Digest of all that the result depends on: settings, code and the content of the input files.

        Not among them is how many processes compute it and the like, which a killed run may change.
        """
        settings = self.settings.model_dump_json(exclude={"compute": set(Compute.AT_WILL)})
        parts = [settings, self.code, *map(sha256_of, inputs)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
