"""Stopping without losing work: signals and the time limit set a flag that the work checks at safe places."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from types import FrameType

RESUMABLE = 75
"""Exit status (EX_TEMPFAIL) of a job that was told to stop and saved its state: run it again and it goes on."""


class Interrupted(Exception):
    """A signal, or with None the time limit, asked the work to stop; everything finished so far is on disk."""

    def __init__(self, number: int | None) -> None:
        why = "before its time limit" if number is None else f"by {signal.Signals(number).name}"
        super().__init__(f"stopped {why}; finished work is kept, run the same again to go on")
        self.number = number
        self.status = 130 if number == signal.SIGINT else RESUMABLE


class Stop:
    """Remembers the last signal and when the time is up; `check` raises at a place where stopping is safe."""

    def __init__(self, seconds: float | None = None) -> None:
        self.number: int | None = None
        self.ends = math.inf if seconds is None else time.monotonic() + seconds

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    @property
    def signalled(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.ends

    def check(self) -> None:
        """Raise Interrupted if a signal has come or the time is up."""
        if self.signalled or self.late:
            raise Interrupted(self.number)


@contextlib.contextmanager
def stoppable(seconds: float | None = None) -> Iterator[Stop]:
    """Within the block SIGINT, SIGTERM and SIGUSR1 set the yielded `Stop` instead of ending the process, and so does
    the end of `seconds`, if they are given.
    """
    stop = Stop(seconds)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
