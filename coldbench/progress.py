"""Progress a person can follow, and stopping without losing work."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

log = logging.getLogger("coldbench")

RESUMABLE = 75
"""Exit status (EX_TEMPFAIL) of a job that was told to stop and saved its state: run it again and it goes on."""


class Interrupted(Exception):
    """A signal asked the work to stop; everything finished so far is on disk."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}; finished work is kept, run the same again to go on"
        )
        self.status = 130 if number == signal.SIGINT else RESUMABLE


class Stop:
    """Remembers the first signal; `check` raises at a place where stopping is safe."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    def __bool__(self) -> bool:
        return self.number is not None

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)

    def end(self) -> NoReturn:
        """Raise Interrupted: by the signal that has come, here or (then as if by SIGTERM) to another process."""
        raise Interrupted(self.number or signal.SIGTERM)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Within the block SIGINT, SIGTERM and SIGUSR1 set the yielded `Stop` instead of ending the process."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to(path: Path | None, name: str) -> None:
    """Send progress lines to the terminal and, with a path, to that log file as well; each line begins with `name`."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.StreamHandler()]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        log.handlers.append(logging.FileHandler(path, mode="a"))
        log.handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.handlers[0].setFormatter(logging.Formatter(f"{name} %(message)s"))


def log_end(message: str) -> None:
    """Write a job's last words to its log file; the terminal has them already."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord(log.name, logging.ERROR, __file__, 0, message, None, None))


def clock(seconds: float) -> str:
    """A duration for people: 0:09, 12:05, 3:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Ticker:
    """One status line every few seconds: share done, facts, rate and time left."""

    def __init__(self, total: int, unit: str, images_each: float, start: int = 0, every: float = 5.0) -> None:
        self.total, self.unit, self.images_each, self.every = total, unit, images_each, every
        self.start, self.began, self.shown = start, time.monotonic(), 0.0

    def rate(self, done: int) -> float:
        """Images per second since this process began."""
        return (done - self.start) * self.images_each / max(time.monotonic() - self.began, 1e-9)

    def due(self, done: int) -> bool:
        """Whether it is time for a line: every few seconds, and when the work is done."""
        return done >= self.total or time.monotonic() - self.shown >= self.every

    def tick(self, done: int, facts: str = "") -> None:
        """Show the line if it is due."""
        if not self.due(done):
            return
        self.shown = now = time.monotonic()
        rate = self.rate(done)
        left = clock((self.total - done) * self.images_each / rate) if rate > 0 else "?"
        ahead = f"{left} left" if done < self.total else f"took {clock(now - self.began)}"
        parts = [f"{done / self.total:4.0%}", f"{self.unit} {done}/{self.total}", facts, f"{rate:.0f} images/s", ahead]
        log.info(" · ".join(part for part in parts if part))
