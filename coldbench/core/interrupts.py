"""Stopping without losing work: signals and the time limit set a flag, and the work checks it at safe places."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from types import FrameType

RESUMABLE = 75
"""Exit status (EX_TEMPFAIL) of a stopped job that saved its state; the same command resumes it."""


class Interrupted(Exception):
    """A signal (its `number`) or the time limit (None) stopped the work; everything finished so far is on disk."""

    def __init__(self, number: int | None) -> None:
        why = "before its time limit" if number is None else f"by {signal.Signals(number).name}"
        super().__init__(f"stopped {why}; finished work is kept, run the same command again to resume")
        self.number = number
        self.status = 130 if number == signal.SIGINT else RESUMABLE


class Stop:
    """The last signal and the time limit in seconds (None: no limit); `check` is called where stopping is safe."""

    def __init__(self, seconds: float | None = None) -> None:
        self.number: int | None = None
        self.ends = math.inf if seconds is None else time.monotonic() + seconds

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    @property
    def signalled(self) -> bool:
        """Whether a signal has arrived."""
        return self.number is not None

    @property
    def time_is_up(self) -> bool:
        """Whether the time limit has passed."""
        return time.monotonic() >= self.ends

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived or the time limit has passed."""
        if self.signalled or self.time_is_up:
            raise Interrupted(self.number)


@contextlib.contextmanager
def stoppable(seconds: float | None = None) -> Iterator[Stop]:
    """Within the block, SIGINT, SIGTERM, SIGUSR1 and the time limit of `seconds` set the yielded `Stop`.

    The signals do not end the process until the block is left.
    """
    stop = Stop(seconds)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
