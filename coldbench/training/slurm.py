"""A training on a shared machine: its time limit, the requeueing of its job, its heartbeat and its lock.

A training outlives its Slurm jobs. Before the time limit it saves and asks Slurm to requeue the job. The requeued job
resumes from the checkpoint, and Snakemake sees one job throughout. Outside Slurm the time is unlimited and no job is
requeued. The heartbeat and the lock work everywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json, write_json
from coldbench.core.interrupts import Interrupted
from coldbench.core.logs import log

HEARTBEAT = "heartbeat.json"
LOCK = ".lock"
LOCK_WAIT = 2.0
"""Seconds that a training waits for its lock, because `coldbench status` holds it for an instant to look."""
REQUEUE_WAIT = 600.0
"""Seconds that a job waits for Slurm to end it. After them it ends by itself and counts as failed."""


def slurm_job_id() -> str:
    """The number of the Slurm job of this process, or "" outside Slurm."""
    return os.environ.get("SLURM_JOB_ID", "")


def usable_runtime(time_limit: float | None) -> float | None:
    """The seconds that a Slurm job may train, from its `time_limit` in minutes. None, unlimited, outside Slurm.

    The margin for starting and saving is 5 % of the limit, at least 60 s, at most 600 s, and never more than half.
    """
    if time_limit is None or not slurm_job_id():
        return None
    seconds = 60 * time_limit
    margin = min(max(60.0, seconds / 20), 600.0, seconds / 2)
    return seconds - margin


def requeue(stop: Interrupted, wait: float = REQUEUE_WAIT) -> None:
    """Ask Slurm to requeue this job and wait to be terminated. Returns at once outside Slurm, or if the request fails.

    After SIGTERM the job only waits, because Slurm has already decided to preempt, cancel or requeue it. A job that
    exits by itself before Slurm ends it counts as failed.
    """
    job = slurm_job_id()
    if not job or stop.number == signal.SIGINT:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm repeats the signal at the end of the grace time
    if stop.number != signal.SIGTERM and os.environ.get("SLURM_PROCID", "0") == "0":
        try:
            request = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        except OSError as error:
            log.warning("cannot requeue job %s: scontrol: %s", job, error.strerror)
            return
        if request.returncode:
            log.warning("cannot requeue job %s: %s", job, request.stderr.strip())
            return
        log.info("job %s is requeued", job)
    time.sleep(wait)


@dataclass
class Heartbeat:
    """How far the training in `folder` is and where it runs, for `coldbench status`.

    `step` counts the finished optimizer steps. `seconds_left` is None until a rate is known.
    """

    folder: Path
    max_steps: int
    step: int = 0
    images_per_second: float = 0.0
    seconds_left: float | None = None

    def write(self, state: Literal["running", "stopped", "failed"], error: str = "") -> None:
        """Replace `heartbeat.json`. A failed write is ignored, because a heartbeat must not end a training."""
        progress = {"step": self.step, "max_steps": self.max_steps}
        speed = {"images_per_second": self.images_per_second, "seconds_left": self.seconds_left}
        place = {"host": socket.gethostname(), "pid": os.getpid(), "job": slurm_job_id(), "time": time.time()}
        with contextlib.suppress(ColdbenchError):
            write_json(self.folder / HEARTBEAT, {"state": state, "error": error, **progress, **speed, **place})


@contextlib.contextmanager
def run_lock(heartbeat: Heartbeat) -> Iterator[None]:
    """Hold the lock of the heartbeat's folder, so that only one process trains a model at a time.

    The kernel releases the lock when the process ends, also after SIGKILL. Within the block the heartbeat runs, and it
    records the error that ends the block. If the file system does not support locks, the block runs unlocked and the
    log warns. Raises ColdbenchError if another process holds the lock, or if the folder cannot be made.
    """
    folder = heartbeat.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ColdbenchError(f"cannot write {folder}: {error.strerror}") from error
    # flock alone: a lock that is only a file would outlive a killed process
    lock = filelock.FileLock(folder / LOCK, timeout=LOCK_WAIT, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ColdbenchError(f"{_lock_holder(folder)} trains this model already; wait until it ends") from None
    except OSError as error:
        log.warning("cannot lock %s (%s): a second training of this model is not refused", folder, error.strerror)
    try:
        heartbeat.write("running")
        with record_failure(heartbeat):
            yield
    finally:
        lock.release()


def lock_is_held(folder: Path) -> bool | None:
    """Whether a process holds the lock of `folder`; None if the file system cannot tell."""
    try:
        with (folder / LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def _lock_holder(folder: Path) -> str:
    """The process that holds the lock of `folder`, as its heartbeat tells."""
    time.sleep(1)  # a process that has just locked the folder has yet to write its heartbeat
    try:
        beat = read_json(folder / HEARTBEAT)
        if beat["state"] == "running":
            return f"job {beat['job']} on {beat['host']}" if beat["job"] else f"process {beat['pid']} on {beat['host']}"
    except (ColdbenchError, LookupError, TypeError):
        pass
    return "another process"


@contextlib.contextmanager
def record_failure(heartbeat: Heartbeat) -> Iterator[None]:
    """Write the error that ends the block to the heartbeat. Interrupted is no failure."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        heartbeat.write("failed", str(error))
        raise
