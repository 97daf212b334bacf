"""A training in a Slurm job: what it does when its time is over, and what others can see of it.

A stand-in for Slurm's commands tells what was asked of it; test_slurm.py does the same with a real Slurm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json, write_json
from coldbench.core.interrupts import RESUMABLE, Interrupted, stoppable
from coldbench.training import distributed, loop
from coldbench.training import slurm as slurm_jobs

CPU = torch.device("cpu")


@given(st.floats(0.01, 1e5))
def test_a_limit_leaves_time_to_start_and_to_save(limit: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLURM_JOB_ID", raising=False)
        assert slurm_jobs.working_seconds(limit) is None
        patch.setenv("SLURM_JOB_ID", "17")
        assert slurm_jobs.working_seconds(None) is None
        seconds = slurm_jobs.working_seconds(limit)
    assert seconds is not None
    spare = 60 * limit - seconds
    assert 0 < seconds < 60 * limit
    assert spare <= 600.001
    assert limit < 2 or spare >= 59.999


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for scontrol and squeue that write down how they were called; this process is job 17."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def say(program: str, status: int = 0, out: str = "", err: str = "") -> None:
        path = folder / program
        path.write_text(
            f"#!/bin/sh\necho {program} $* >> {tmp_path}/asked\necho '{out}'\necho '{err}' >&2\nexit {status}\n"
        )
        path.chmod(0o755)

    def asked() -> list[str]:
        return (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []

    say("scontrol")
    say("squeue")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    before = signal.getsignal(signal.SIGTERM)
    yield say, asked
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("number", "commands"),
    [(None, ["scontrol requeue 17"]), (signal.SIGUSR1, ["scontrol requeue 17"]), (signal.SIGTERM, [])],
)
def test_a_stopped_job_waits_for_slurm(slurm, number, commands):
    _, asked = slurm
    began = time.monotonic()
    slurm_jobs.hand_over(Interrupted(number), patience=0.3)
    assert time.monotonic() - began >= 0.3
    assert asked() == commands
    os.kill(os.getpid(), signal.SIGTERM)  # comes again when a grace time ends: it must not turn into a failure


def test_ctrl_c_and_other_machines_wait_for_nobody(slurm, monkeypatch):
    _, asked = slurm
    slurm_jobs.hand_over(Interrupted(signal.SIGINT), patience=60)
    monkeypatch.delenv("SLURM_JOB_ID")
    slurm_jobs.hand_over(Interrupted(None), patience=60)
    assert asked() == []


def test_only_the_first_process_asks(slurm, monkeypatch):
    _, asked = slurm
    monkeypatch.setenv("SLURM_PROCID", "1")
    slurm_jobs.hand_over(Interrupted(None), patience=0.01)
    assert asked() == []


def test_a_refusal_ends_the_job_at_once(slurm, caplog, monkeypatch):
    """Then Snakemake sees a failure, and uses one of its retries."""
    say, asked = slurm
    monkeypatch.setattr(slurm_jobs.log, "propagate", True)
    say("scontrol", 1, err="Requested operation is presently disabled")
    slurm_jobs.hand_over(Interrupted(None), patience=60)
    assert asked() == ["scontrol requeue 17"]
    assert "Slurm does not queue job 17 again: Requested operation is presently disabled" in caplog.text


def train_a_slot(experiment, digits, folder: Path) -> Interrupted | None:
    """Train until the first moment at which the time is up; how it was stopped, or None if it was not."""
    try:
        loop.train(experiment, digits, folder / "model.safetensors", folder, CPU, upkeep=loop.Upkeep(stop_after=0.0))
    except Interrupted as stop:
        return stop
    return None


def test_a_training_stops_before_its_limit_and_goes_on(experiment, digits, tmp_path):
    """Stopped after every update, a training ends with the weights of one that was not."""
    loop.train(experiment, digits, tmp_path / "a" / "model.safetensors", tmp_path / "a", CPU)
    for update in range(1, 13):
        ended = train_a_slot(experiment, digits, tmp_path / "b")
        if update < 12:
            assert ended is not None
            assert (ended.number, ended.status) == (None, RESUMABLE)
            assert "before its time limit" in str(ended)
            seen = read_json(tmp_path / "b" / slurm_jobs.SIGN_OF_LIFE)
            assert (seen["state"], seen["step"], seen["max_steps"]) == ("stopped", update, 12)
        assert (tmp_path / "b" / "model.safetensors").exists() == (ended is None) == (update == 12)
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert same[0] == same[1]


def test_a_signal_tells_more_than_the_clock():
    with stoppable(0.0) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted) as told:
            stop.check()
    assert told.value.number == signal.SIGUSR1


@pytest.mark.parametrize(
    ("seen", "state", "refused"),
    [
        ({"state": "running", "job": "16"}, "RUNNING", True),
        ({"state": "running", "job": "16"}, "COMPLETING", False),  # killed: what it left is gone on from
        ({"state": "running", "job": "16"}, "", False),
        ({"state": "stopped", "job": "16"}, "RUNNING", False),
        ({"state": "running", "job": "17"}, "RUNNING", False),  # this very job, queued again
    ],
)
def test_no_model_is_trained_by_two_jobs(slurm, tmp_path, seen, state, refused):
    say, _ = slurm
    say("squeue", out=state)
    write_json(tmp_path / slurm_jobs.SIGN_OF_LIFE, {"host": "node1", "pid": 1, **seen})
    if refused:
        with pytest.raises(ColdbenchError, match="job 16 on node1 trains this model already"):
            slurm_jobs.refuse_second(tmp_path)
    else:
        slurm_jobs.refuse_second(tmp_path)


def test_no_model_is_trained_by_two_processes(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "coldbench"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        slurm_jobs.sign_of_life(tmp_path, "running")
        mine = read_json(tmp_path / slurm_jobs.SIGN_OF_LIFE)
        slurm_jobs.refuse_second(tmp_path)  # its own
        write_json(tmp_path / slurm_jobs.SIGN_OF_LIFE, {**mine, "pid": other.pid})
        with pytest.raises(ColdbenchError, match=f"process {other.pid} trains this model already"):
            slurm_jobs.refuse_second(tmp_path)
        write_json(tmp_path / slurm_jobs.SIGN_OF_LIFE, {**mine, "pid": other.pid, "host": "elsewhere"})
        slurm_jobs.refuse_second(tmp_path)
        other.kill()
    write_json(tmp_path / slurm_jobs.SIGN_OF_LIFE, {**mine, "pid": other.pid})
    slurm_jobs.refuse_second(tmp_path)


RUSH = """
import sys, time
from pathlib import Path
from coldbench.training import slurm as slurm_jobs
from coldbench.core.errors import ColdbenchError
folder = Path(sys.argv[1])
print(flush=True)
sys.stdin.readline()
try:
    with slurm_jobs.alone(folder):
        slurm_jobs.refuse_second(folder)
        time.sleep(0.2)  # between the look and the sign another one would slip in
        slurm_jobs.sign_of_life(folder, "running")
    print("in", flush=True)
except ColdbenchError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


def test_of_processes_that_start_in_one_instant_one_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    command = [sys.executable, "-c", RUSH, str(tmp_path / "work"), "coldbench"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as ended:
        rushing = [ended.enter_context(subprocess.Popen(command, **pipes)) for _ in range(4)]
        for process in rushing:
            process.stdout.readline()  # they have their imports behind them
        for process in rushing:
            print(file=process.stdin, flush=True)
        said = [process.stdout.readline().strip() for process in rushing]
        first = rushing[said.index("in")].pid
        for process in rushing:
            process.communicate("\n")
    assert sorted(said) == ["in", *[f"process {first} trains this model already; wait for it, or kill {first}"] * 3]


def test_a_lock_that_nobody_lets_go_of_or_that_is_not_to_be_had_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_jobs, "HELD", 0.2)
    with slurm_jobs.alone(tmp_path / "work"), slurm_jobs.alone(tmp_path / "work"):
        pass
    (tmp_path / "file").write_text("where a folder should be")
    with slurm_jobs.alone(tmp_path / "file"):
        pass


def test_another_that_began_in_the_meantime_is_left_in_peace(experiment, digits, tmp_path, monkeypatch):
    """Between the first look and the first sign of life, a training builds its network: time for another to begin."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "coldbench"]
    sign, original = tmp_path / "work" / slurm_jobs.SIGN_OF_LIFE, distributed.fabric
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()

        def fabric(*arguments: Any) -> Any:
            slurm_jobs.sign_of_life(tmp_path / "work", "running")
            write_json(sign, {**read_json(sign), "pid": other.pid})
            return original(*arguments)

        monkeypatch.setattr(distributed, "fabric", fabric)
        try:
            with pytest.raises(ColdbenchError, match=f"process {other.pid} trains this model already"):
                loop.train(experiment, digits, tmp_path / "model.safetensors", tmp_path / "work", CPU)
        finally:
            other.kill()
    assert read_json(sign)["pid"] == other.pid
    assert read_json(sign)["state"] == "running"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state": "running", "pid": "x", "job": "", "host": ""}'])
def test_a_damaged_sign_of_life_stops_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / slurm_jobs.SIGN_OF_LIFE).write_text(content)
    slurm_jobs.refuse_second(tmp_path)


def test_a_sign_of_life_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file where a folder should be")
    slurm_jobs.sign_of_life(tmp_path / "work", "running")
