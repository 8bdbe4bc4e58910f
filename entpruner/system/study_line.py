"""A line on the terminal that shows the progress of a whole workflow. Snakemake imports it, so it loads no torch."""

import logging
from typing import TextIO

from tqdm import tqdm


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
