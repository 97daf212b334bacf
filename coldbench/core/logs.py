"""The log of a job: progress lines on the terminal and in a file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from coldbench.core.errors import ColdbenchError

log = logging.getLogger("coldbench")


class LogFile(logging.FileHandler):
    """A log in a file. A full disk loses its lines, but ends no work and prints nothing."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def log_to(path: Path | None, name: str) -> None:
    """Log to the terminal, with `name` before each line, and to the file `path` unless it is None."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.StreamHandler()]
    log.handlers[0].setFormatter(logging.Formatter(f"{name.replace('%', '%%')} %(message)s"))
    if path is not None:
        add_file(path)


def add_file(path: Path) -> None:
    """Log to one more file, appending to it; ColdbenchError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = LogFile(path, mode="a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ColdbenchError(f"cannot write log {path}: {error.strerror or error}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)


def log_failure(message: str) -> None:
    """Write why the job ended to its log files only, because the command line prints it on the terminal."""
    for handler in log.handlers:
        if isinstance(handler, LogFile):
            handler.emit(logging.LogRecord(log.name, logging.ERROR, __file__, 0, message, None, None))


def clock(seconds: float) -> str:
    """A duration in minutes and seconds or in hours: 0:09, 12:05, 3:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Ticker:
    """Logs the progress of `total` units of work every few seconds: percentage, rate and time left.

    `images_each` is the number of images in a unit, `start` the units that an earlier job finished, and `every` the
    seconds between two lines.
    """

    def __init__(self, total: int, unit: str, images_each: float, start: int = 0, every: float = 5.0) -> None:
        self.total, self.unit, self.images_each, self.every = total, unit, images_each, every
        self.start, self.began, self.shown = start, time.monotonic(), 0.0

    def rate(self, done: int) -> float:
        """Images per second since this job began."""
        return (done - self.start) * self.images_each / max(time.monotonic() - self.began, 1e-9)

    def due(self, done: int) -> bool:
        """Whether a line is due: every few seconds, and when the work is complete."""
        return done >= self.total or time.monotonic() - self.shown >= self.every

    def tick(self, done: int, facts: str = "") -> None:
        """Log a line if one is due; `facts` stands in its middle."""
        if not self.due(done):
            return
        self.shown = now = time.monotonic()
        rate = self.rate(done)
        left = clock((self.total - done) * self.images_each / rate) if rate > 0 else "?"
        duration = f"{left} left" if done < self.total else f"took {clock(now - self.began)}"
        parts = [f"{done / self.total:4.0%}", f"{self.unit} {done}/{self.total}", facts, f"{rate:.0f} images/s"]
        log.info(" · ".join(part for part in (*parts, duration) if part))
