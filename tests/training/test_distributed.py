"""Several processes train what one process trains: by torchrun, by srun, and one process inside a Slurm job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
import watched_training
from processes import Process
from training_cases import CPU, assert_same_training, log, steps, weights, words

from coldbench.core.errors import ColdbenchError
from coldbench.core.interrupts import RESUMABLE
from coldbench.models import model_file
from coldbench.training import distributed
from coldbench.training.slurm import LOCK

LOSS, WEIGHT = 1e-4, 2e-3  # relative; absolute, of weights that moved by up to 12 steps of 1e-3 each
Environments = list[dict[str, str]]


def environment(**variables: object) -> dict[str, str]:
    """The environment of this process with `variables`, and without those of any launcher."""
    launchers = ("SLURM_", "TORCHELASTIC", "WORLD_SIZE", "RANK", "LOCAL_", "GROUP_", "ROLE_", "MASTER_")
    rest = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    return rest | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in variables.items()}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def torchrun(count: int) -> Environments:
    """The variables that torchrun sets for its processes."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1}
    return [environment(**shared, RANK=rank, LOCAL_RANK=rank) for rank in range(count)]


def srun(count: int, name: str) -> Environments:
    """The variables that srun sets for its tasks, in a job of that name."""
    port = free_port()
    shared = {"SLURM_JOB_ID": 10_000 + port % 10_000, "SLURM_JOB_NAME": name, "SLURM_NODELIST": "localhost"}
    shared |= {"SLURM_NTASKS": count, "SLURM_NTASKS_PER_NODE": count, "SLURM_NNODES": 1, "SLURM_NODEID": 0}
    shared |= {"SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": count, "SLURM_STEP_NUM_NODES": 1}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [environment(**shared, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in range(count)]


class Ended:
    """The exit status of a process, the steps that it saved, and its error messages."""

    def __init__(self, process: Process, out: str, err: str) -> None:
        self.status, self.err = process.returncode, err
        self.saved = [int(line.split()[1]) for line in out.splitlines() if line.startswith("saved ")]
        self.errors = [line for line in err.splitlines() if line.startswith("coldbench: error:")]


def run(arguments: list[str], environments: Environments, timeout: float = 120) -> list[Ended]:
    """Run the command once in each environment, all at the same time. No process outlives the call."""
    processes = [Process(watched_training.main, arguments, each) for each in environments]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Ended(process, *output) for process, output in zip(processes, outputs, strict=True)]


def assert_near(folder: Path, reference: Path) -> None:
    """The same training up to rounding: other processes sum in another order."""
    lines, expected = log(folder), log(reference)
    for key, tolerance in (("step", 0), ("images", 0), ("loss", LOSS), ("grad_norm", 10 * LOSS)):
        values, exact = ([line[key] for line in each] for each in (lines, expected))
        np.testing.assert_allclose(values, exact, rtol=tolerance, err_msg=key)
    trained = weights(folder)
    assert trained.keys() == weights(reference).keys()
    for key, value in weights(reference).items():
        torch.testing.assert_close(trained[key], value, rtol=0, atol=WEIGHT)


@pytest.mark.slow
def test_torchrun_trains_what_one_process_trains(experiment, digits, tmp_path, undisturbed) -> None:
    """`torchrun --nproc-per-node 2 coldbench train`, as users type it."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [*launch, watched_training.__file__, *words(experiment, digits, tmp_path)]
    variables = environment(PYTHONPATH=os.pathsep.join(sys.path))
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr
    assert_near(tmp_path, undisturbed(experiment, digits))
    assert model_file.load_model(tmp_path / "model.safetensors", CPU, 1).provenance["world_size"] == 2
    assert ended.stdout.count("saved 12") == 1, "only the first process writes"
    assert steps(tmp_path) == [12]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coldbench", "interactive"])
def test_srun_trains_what_one_process_trains(experiment, digits, tmp_path, undisturbed, name) -> None:
    """Two tasks of a batch job, and of `salloc`, whose jobs are called interactive."""
    ended = run(words(experiment, digits, tmp_path), srun(2, name), 60)
    assert [(process.status, process.saved) for process in ended] == [(0, [12]), (0, [])], ended[0].err
    assert_near(tmp_path, undisturbed(experiment, digits))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_process_stops_all_after_same_step(experiment, digits, tmp_path, undisturbed, rank) -> None:
    """One process alone then resumes and ends like any other training."""
    environments = torchrun(2)
    environments[rank] |= {"STOP_AT": "5", "STOP_BY": str(int(signal.SIGTERM))}
    ended = run(words(experiment, digits, tmp_path), environments)
    assert [(process.status, process.saved) for process in ended] == [(RESUMABLE, [5]), (RESUMABLE, [])], ended[0].err
    assert steps(tmp_path) == [5]
    assert not (tmp_path / "model.safetensors").exists()
    for process in ended:
        assert "stopped by SIGTERM; finished work is kept" in process.err
        assert "Traceback" not in process.err
    [single] = run(words(experiment, digits, tmp_path), [environment()])
    assert single.status == 0, single.err
    assert "resuming at step 5 of 12" in single.err
    assert_near(tmp_path, undisturbed(experiment, digits))


@pytest.mark.slow
def test_two_processes_resume_training_of_one(experiment, digits, tmp_path, undisturbed) -> None:
    stop = {"STOP_AT": "7", "STOP_BY": str(int(signal.SIGUSR1))}
    [single] = run(words(experiment, digits, tmp_path), [environment(**stop)])
    assert single.status == RESUMABLE
    ended = run(words(experiment, digits, tmp_path), torchrun(2))
    assert [process.status for process in ended] == [0, 0], ended[0].err
    assert_near(tmp_path, undisturbed(experiment, digits))


def assert_all_refuse(ended: list[Ended], error: str) -> None:
    """Every process ends with the same line; none waits for the others."""
    for process in ended:
        assert process.status == 1
        assert [error in line for line in process.errors] == [True], process.err
        assert "Traceback" not in process.err
        assert process.saved == []
    assert ended[0].errors == ended[1].errors


@pytest.mark.slow
def test_uneven_micro_batch_is_refused_by_all_processes(experiment, digits, tmp_path) -> None:
    odd = experiment.training.model_copy(update={"batch_size": 6})
    arguments = words(experiment.model_copy(update={"training": odd}), digits, tmp_path)
    assert_all_refuse(run(arguments, torchrun(2), 60), "micro-batch of 3 images cannot be divided evenly among 2")
    assert steps(tmp_path) == []


@pytest.mark.slow
def test_held_lock_is_refused_by_all_processes(experiment, digits, tmp_path) -> None:
    (tmp_path / "work").mkdir()
    with filelock.FileLock(tmp_path / "work" / LOCK):
        ended = run(words(experiment, digits, tmp_path), torchrun(2), 60)
    assert_all_refuse(ended, "another process trains this model already")


@pytest.mark.slow
def test_bad_loss_of_one_process_ends_all(experiment, digits, tmp_path) -> None:
    environments = torchrun(2)
    environments[1]["SPOIL_AT"] = "9"  # two micro-batches a step
    ended = run(words(experiment, digits, tmp_path), environments, 60)
    assert_all_refuse(ended, "the loss or its gradient is not finite at step 5 (images from 32, ")
    assert steps(tmp_path) == []


IN_A_JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "snakejob"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.slow
def test_process_that_srun_did_not_start_trains_alone(experiment, digits, tmp_path, undisturbed) -> None:
    """The job around it has four tasks; the process waits for none of them and trains to the same bits."""
    job = environment(**IN_A_JOB, SLURM_NTASKS_PER_NODE=2, SLURM_NODELIST="node[1-2]")
    [single] = run(words(experiment, digits, tmp_path), [job], 60)
    assert single.status == 0, single.err
    assert_same_training(tmp_path, undisturbed(experiment, digits))


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        (IN_A_JOB, 1),
        (IN_A_JOB | BATCH_SCRIPT, 1),  # sbatch sets the tasks of the job and rank 0, but no step
        (IN_A_JOB | {"SLURM_STEP_NUM_TASKS": "4"}, 4),
        (IN_A_JOB | {"SLURM_STEP_NUM_TASKS": "4", "WORLD_SIZE": "8"}, 8),  # torchrun inside a Slurm job
    ],
)
def test_launcher_decides_number_of_processes(monkeypatch, variables, count) -> None:
    for key in os.environ.keys() - environment().keys():
        monkeypatch.delenv(key)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert distributed.processes() == count


class Place:
    """The place of a process among others, in the place of a Fabric."""

    def __init__(self, world_size: int, global_rank: int) -> None:
        self.world_size, self.global_rank = world_size, global_rank


@pytest.mark.parametrize(("batch", "count"), [(8, 1), (8, 2), (12, 3), (4, 4)])
def test_local_batches_make_up_micro_batch(batch: int, count: int) -> None:
    """Together they are every image once, in order, and equally many in each process."""
    local = [distributed.local_batch(batch, Place(count, rank)) for rank in range(count)]
    assert [image for part in local for image in part] == list(range(batch))
    assert len({len(part) for part in local}) == 1


def test_uneven_divisions_are_refused(monkeypatch) -> None:
    with pytest.raises(ColdbenchError, match="a micro-batch of 8 images cannot be divided evenly among 5 processes"):
        distributed.local_batch(8, Place(5, 0))
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(ColdbenchError, match="3 processes cannot be divided evenly among 2 nodes"):
        distributed.launch(CPU, "fp32")
