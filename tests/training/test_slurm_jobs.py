"""A training in a Slurm job: its time, how it is requeued, its heartbeat, and the lock against a second one.

Scripts in the place of Slurm's commands record how they are called; tests/workflow/test_slurm.py uses a real Slurm.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_cases import assert_same_training, heartbeat, train

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import write_json
from coldbench.core.interrupts import Interrupted, stoppable
from coldbench.models import model_file
from coldbench.training import loop
from coldbench.training import slurm as slurm_jobs
from coldbench.training.slurm import HEARTBEAT, LOCK, Heartbeat, run_lock


@pytest.fixture(autouse=True)
def _outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("SLURM_JOB_ID", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)


# Time


@given(st.floats(0.01, 1e5))
def test_usable_runtime_leaves_time_to_start_and_save(limit: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLURM_JOB_ID", raising=False)
        assert slurm_jobs.usable_runtime(limit) is None
        patch.setenv("SLURM_JOB_ID", "17")
        assert slurm_jobs.usable_runtime(None) is None
        seconds = slurm_jobs.usable_runtime(limit)
    assert seconds is not None
    margin = 60 * limit - seconds
    assert 0 < seconds < 60 * limit
    assert margin <= 600.001
    assert limit < 2 or margin >= 59.999


def test_signal_takes_precedence_over_time_limit():
    with stoppable(0.0) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.number == signal.SIGUSR1


# Requeueing


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A scontrol that records its calls and may fail; this process is job 17."""
    calls = tmp_path / "calls"

    class Scontrol:
        def returns(self, status: int, error: str = "") -> None:
            path = tmp_path / "bin" / "scontrol"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\necho scontrol $* >> {calls}\necho '{error}' >&2\nexit {status}\n")
            path.chmod(0o755)

        @property
        def calls(self) -> list[str]:
            return calls.read_text().splitlines() if calls.exists() else []

    program = Scontrol()
    program.returns(0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    handler = signal.getsignal(signal.SIGTERM)
    yield program
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("number", "variables", "requeues", "waits"),
    [
        (None, {}, True, True),
        (signal.SIGUSR1, {}, True, True),
        (signal.SIGTERM, {}, False, True),  # Slurm has decided already
        (None, {"SLURM_PROCID": "1"}, False, True),  # only the first process asks
        (signal.SIGINT, {}, False, False),
        (None, {"SLURM_JOB_ID": ""}, False, False),
    ],
)
def test_stopped_job_is_requeued_and_waits_for_slurm_to_end_it(
    scontrol, monkeypatch, number, variables, requeues, waits
):
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    start = time.monotonic()
    slurm_jobs.requeue(Interrupted(number), wait=0.3)
    assert (time.monotonic() - start >= 0.3) == waits
    assert scontrol.calls == ["scontrol requeue 17"] * requeues
    if waits:
        os.kill(os.getpid(), signal.SIGTERM)  # Slurm repeats it after the grace time; the job must not fail of it


def test_refused_requeue_ends_job_at_once(scontrol, caplog, monkeypatch):
    """Snakemake then sees a failure and uses one of its retries."""
    scontrol.returns(1, "Requested operation is presently disabled")
    slurm_jobs.requeue(Interrupted(None), wait=60)
    assert scontrol.calls == ["scontrol requeue 17"]
    assert "cannot requeue job 17: Requested operation is presently disabled" in caplog.text


# The lock

TRAINER = """
import sys, time
from pathlib import Path
from coldbench.core.errors import ColdbenchError
from coldbench.training.slurm import Heartbeat, run_lock
print(flush=True)
sys.stdin.readline()
try:
    with run_lock(Heartbeat(Path(sys.argv[1]), 12)):
        print("in", flush=True)
        sys.stdin.readline()
except ColdbenchError as error:
    print(error, flush=True)
"""


@contextmanager
def trainer(folder: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A process that takes the lock of `folder` when it reads a line, and releases it when it reads another."""
    command, pipe = [sys.executable, "-c", TRAINER, str(folder)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **environment}) as process:
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen) -> str:
    print(file=process.stdin, flush=True)
    return process.stdout.readline().strip()


@pytest.mark.parametrize("job", ["", "16"])
def test_second_trainer_is_refused_while_lock_is_held(experiment, digits, tmp_path, monkeypatch, undisturbed, job):
    """It ends before any work, in one line that names the first. After SIGKILL of the first the lock is free."""
    reference = undisturbed(experiment, digits)
    with trainer(tmp_path / "work", SLURM_JOB_ID=job) as first:
        assert answer(first) == "in"
        beat = heartbeat(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(loop.models, "build", lambda *_: pytest.fail("the second trainer began its work"))
            with pytest.raises(ColdbenchError) as caught:
                train(experiment, digits, tmp_path)
        holder = f"job 16 on {socket.gethostname()}" if job else f"process {first.pid} on {socket.gethostname()}"
        assert str(caught.value) == f"{holder} trains this model already; wait until it ends"
        assert heartbeat(tmp_path) == beat
        first.kill()
        first.wait()
        train(experiment, digits, tmp_path)
    assert_same_training(tmp_path, reference)


def test_one_of_several_trainers_that_start_together_trains(tmp_path):
    with ExitStack() as stack:
        trainers = [stack.enter_context(trainer(tmp_path / "work")) for _ in range(4)]
        for process in trainers:
            print(file=process.stdin, flush=True)
        answers = [process.stdout.readline().strip() for process in trainers]
    holder = f"process {trainers[answers.index('in')].pid} on {socket.gethostname()}"
    assert sorted(answers) == ["in", *[f"{holder} trains this model already; wait until it ends"] * 3]


def test_lock_is_held_until_model_is_written(experiment, digits, tmp_path, monkeypatch, after_step):
    held, save_model = [], model_file.save_model

    def probe(*_: Any) -> None:
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(tmp_path / "work" / LOCK, timeout=0).acquire()
        held.append(True)

    after_step((1, 12), probe)
    monkeypatch.setattr(model_file, "save_model", lambda *args: probe() or save_model(*args))
    train(experiment, digits, tmp_path)
    assert len(held) == 3
    with filelock.FileLock(tmp_path / "work" / LOCK, timeout=0):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_training_runs_unlocked_with_warning_where_locks_are_unsupported(tmp_path, monkeypatch, caplog, number):
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    entered = False
    with run_lock(Heartbeat(tmp_path, 12)):
        entered = True
    assert entered
    assert f"cannot lock {tmp_path} ({os.strerror(number)})" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state": "running"}', '{"state": "stopped"}'])
def test_refusal_needs_no_heartbeat(tmp_path, monkeypatch, content):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with filelock.FileLock(tmp_path / LOCK, timeout=0):
        (tmp_path / HEARTBEAT).write_text(content)
        with pytest.raises(ColdbenchError, match=r"^another process trains this model already"):
            run_lock(Heartbeat(tmp_path, 12)).__enter__()


def test_stale_heartbeat_refuses_nobody(tmp_path):
    """A killed process leaves a heartbeat that says running; the lock alone decides."""
    beat = {"state": "running", "job": "16", "host": socket.gethostname(), "pid": os.getppid()}
    write_json(tmp_path / HEARTBEAT, beat)
    with run_lock(Heartbeat(tmp_path, 12)):
        pass


def test_heartbeat_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file in the place of the folder")
    Heartbeat(tmp_path / "work", 12).write("running")
