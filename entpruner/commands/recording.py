"""What every computing command writes beside its result: time, machine, settings, code."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from entpruner import parallel
from entpruner.artefacts import Stopwatch, sha256_of
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.provenance import code_digest, commit


class Recorder:
    """Made when a command begins; ``record`` is the content of its ``timing.json``."""

    def __init__(self, module: str, settings: Frozen, device: torch.device) -> None:
        self.stopwatch = Stopwatch(device)
        self.settings = settings
        self.code = code_digest(module)

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
