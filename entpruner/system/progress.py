"""A line on the terminal that shows progress: of a training, a scoring or a sampling, or of a whole workflow."""

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


class StudyLine(logging.Handler):
    """A line below the log of a workflow, with the finished jobs, the time so far and the time left.

    It stands in for the handler ``shown``, whose messages appear above the line. The time left takes the jobs that are
    left to last as long as the finished ones did. Nothing but the log is shown if ``stream`` (stderr by default) is not
    a terminal.
    """

    def __init__(self, shown: logging.Handler, stream: TextIO | None = None) -> None:
        super().__init__()
        self.shown = shown
        form = "{n} of {total} jobs, {elapsed} so far, {remaining} left"
        self.line = tqdm(file=stream, disable=None, smoothing=0, leave=False, bar_format=form)
        self.line.clear()  # until the number of jobs is known

    @classmethod
    def begin(cls, log: logging.Logger) -> None:
        """Put the line below what ``log`` shows on a terminal, by Snakemake's handler, which says that it is one."""
        for shown in [handler for handler in log.handlers if getattr(handler, "is_tty", False)]:
            log.removeHandler(shown)
            log.addHandler(cls(shown))

    @classmethod
    def end(cls, log: logging.Logger) -> None:
        """Take the line away, and let ``log`` show its messages as before."""
        for line in [handler for handler in log.handlers if isinstance(handler, cls)]:
            log.removeHandler(line)
            log.addHandler(line.shown)
            line.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message, or the progress that Snakemake reports as ``done`` and ``total`` of a record."""
        self.line.clear()
        told = vars(record)
        if "done" in told and not self.line.disable:
            self.line.n, self.line.total = told["done"], told["total"]
        else:
            self.shown.handle(record)
        if self.line.total:
            self.line.refresh()

    def close(self) -> None:
        self.line.close()
        super().close()
