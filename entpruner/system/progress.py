"""One line on the terminal that shows how far a training, scoring or sampling is."""

from typing import Any, TextIO

from tqdm import tqdm

from entpruner.system import parallel


class Progress(tqdm):
    """Rewrites one line with the finished units (steps, draws or batches), the loss, images per second and time left.

    Nothing is shown where ``stream`` (stderr by default) is no terminal, and in all processes but the first. ``clear``
    makes room for a line of the log; the next update is shown below it.
    """

    def __init__(
        self, start: int, stop: int, batch_size: int, unit: str = "step", stream: TextIO | None = None
    ) -> None:
        self.batch_size = batch_size
        super().__init__(
            initial=start,
            total=stop,
            unit=unit,
            file=stream,
            disable=None if parallel.is_first() else True,  # None: shown on a terminal only
            mininterval=0.2,  # seconds between two rewrites
            miniters=1,  # tqdm would guess after how many units to look at the clock, and stand still when these slow
            smoothing=0,  # speed and time left are by the mean of all units
            bar_format="{unit} {n}/{total}{postfix}, {images_per_second:.0f} images/s, {remaining} left",
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        """What ``bar_format`` may name."""
        shown = super().format_dict
        units_per_second = (shown["n"] - shown["initial"]) / max(shown["elapsed"], 1e-9)
        return {**shown, "images_per_second": units_per_second * self.batch_size}
