"""A job on a cluster: how long it may work, how it ends so that Slurm lets it go on, and its sign of life.

A training outlives its jobs. Before its time limit it saves, asks Slurm to put the job back into the queue, and goes on
from there when its turn comes; Snakemake sees one job all the while. Without Slurm there is no limit and nothing to
hand over; the sign of life, and what it protects from, are the same on one's own machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json, write_json
from coldbench.core.interrupts import Interrupted
from coldbench.core.logs import log

PATIENCE = 600.0
"""Seconds that a job which has saved its work waits to be ended by Slurm, before it ends by itself as failed."""
SIGN_OF_LIFE = "progress.json"
LOCK = ".lock"
HELD = 60.0
"""Seconds that a lock is waited for: it is held for a moment, but a file system may not know of its holder's death."""


def job() -> str:
    """The Slurm job that this process runs in, or ""."""
    return os.environ.get("SLURM_JOB_ID", "")


def working_seconds(limit: float | None) -> float | None:
    """How long a Slurm job with a time limit of `limit` minutes may work: something is left for starting and saving.

    That is 5 % of the limit, but at least a minute and at most ten, and never more than half of it. Elsewhere there is
    no limit: None.
    """
    if limit is None or not job():
        return None
    seconds = 60 * limit
    return seconds - min(max(60.0, seconds / 20), 600.0, seconds / 2)


def hand_over(stop: Interrupted, patience: float = PATIENCE) -> None:
    """Leave to Slurm how a job ends that has saved its work; returns where there is no Slurm, or when it does nothing.

    Out of time, or warned by SIGUSR1, the job asks to be queued again. After SIGTERM it only waits: whether it is being
    preempted, cancelled or requeued, Slurm has decided already, and a job that ends by itself first counts as failed.
    """
    if not job() or stop.number == signal.SIGINT:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes again at the end of a grace time
    if stop.number != signal.SIGTERM and os.environ.get("SLURM_PROCID", "0") == "0":
        try:
            asked = subprocess.run(["scontrol", "requeue", job()], capture_output=True, text=True, check=False)
        except OSError as error:
            log.warning("cannot ask Slurm to queue job %s again: scontrol: %s", job(), error.strerror)
            return
        if asked.returncode:
            log.warning("Slurm does not queue job %s again: %s", job(), asked.stderr.strip())
            return
        log.info("job %s is queued again", job())
    time.sleep(patience)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within the block, no other process is in such a block for `folder`, on any machine that shares it.

    Best effort: where no lock is to be had, or one is held for a minute, the block is entered without.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(filelock.Timeout, OSError, NotImplementedError):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(filelock.FileLock(folder / LOCK, timeout=HELD))
        yield


def refuse_second(folder: Path) -> None:
    """Raise ColdbenchError if another job or process is at work on the training in `folder`, by its sign of life."""
    try:
        seen = read_json(folder / SIGN_OF_LIFE)
        state, other, host, pid = seen["state"], str(seen["job"]), str(seen["host"]), int(seen["pid"])
    except (ColdbenchError, OSError, LookupError, TypeError, ValueError):
        return  # nothing, or nothing that can be read: then there is nothing to protect either
    if state != "running" or (other and other == job()):  # a job that was queued again keeps its number
        return
    if other:
        command = ["squeue", "--noheader", "--jobs", other, "--format", "%T"]
        with contextlib.suppress(OSError):  # no Slurm here: nothing can be known about its jobs
            if "RUNNING" in subprocess.run(command, capture_output=True, text=True, check=False).stdout:
                raise ColdbenchError(
                    f"job {other} on {host} trains this model already; wait for it, or scancel {other}"
                )
    elif host == socket.gethostname() and pid != os.getpid() and _is_training(pid):
        raise ColdbenchError(f"process {pid} trains this model already; wait for it, or kill {pid}")


def _is_training(pid: int) -> bool:
    """Whether a process of this machine is a training of ours; where that cannot be told, no."""
    try:
        return b"coldbench" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def sign_of_life(folder: Path, state: str, **facts: Any) -> None:
    """Write to `folder` how far a training is and where it runs, for `coldbench status`. Never ends the training."""
    where = {"host": socket.gethostname(), "pid": os.getpid(), "job": job(), "time": time.time()}
    with contextlib.suppress(ColdbenchError):
        write_json(folder / SIGN_OF_LIFE, {"state": state, **facts, **where})


@contextlib.contextmanager
def last_words(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell of the error that ends the block; being stopped is none."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        tell(str(error))
        raise
