"""Readings of a network while it is trained: numbers that are measured every so many steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from entpruner.system import parallel
from entpruner.training.state import TrainState

Reading = dict[str, Any]
"""What was read, and ``step``, the steps of the whole run that were done, and ``seconds``, how long it took to read."""


@dataclass
class Watch:
    """What is read every ``every`` steps of the run, and at both ends of each stretch of it.

    Reading changes nothing of the training, which goes on to the same bits.
    """

    every: int
    read: Callable[[TrainState], Reading]
    readings: list[Reading] = field(default_factory=list)

    def take(self, state: TrainState) -> float:
        """Add a reading, of the first of several processes. Returns the seconds that it took."""
        began = time.perf_counter()
        if parallel.is_first():
            found = self.read(state)
            self.readings.append({"step": state.step, **found, "seconds": time.perf_counter() - began})
        return time.perf_counter() - began
