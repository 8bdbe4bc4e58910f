"""A line on the terminal that shows the progress of a training, a scoring or a sampling."""

import logging
from typing import Any, TextIO

from tqdm import tqdm

from entpruner.system import parallel


class Progress(tqdm):
    """One line that is rewritten: finished units (steps, draws or batches), loss, images per second, and time left.

    Nothing is shown if ``stream`` (stderr by default) is not a terminal, or if only problems are logged. Only the first
    of several processes shows it. ``clear`` makes room for a line of the log, and the next update appears below it.
    """

    def __init__(
        self, start: int, stop: int, batch_size: int, unit: str = "step", stream: TextIO | None = None
    ) -> None:
        self.batch_size = batch_size
        wanted = parallel.is_first() and logging.getLogger("entpruner").level <= logging.INFO
        super().__init__(
            initial=start,
            total=stop,
            unit=unit,
            file=stream,
            disable=None if wanted else True,  # None means: shown on a terminal only
            mininterval=0.2,  # seconds between two rewrites
            miniters=1,  # without this tqdm looks at the clock too rarely when units become slower
            smoothing=0,  # speed and time left come from the mean over all units
            bar_format="{unit} {n}/{total}{postfix}, {images_per_second:.0f} images/s, {remaining} left",
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values that ``bar_format`` may name."""
        shown = super().format_dict
        units_per_second = (shown["n"] - shown["initial"]) / max(shown["elapsed"], 1e-9)
        return {**shown, "images_per_second": units_per_second * self.batch_size}
