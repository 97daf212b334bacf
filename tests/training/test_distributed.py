"""Several processes train what one process trains: by torchrun, by srun, and alone inside a Slurm job."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.interrupts import RESUMABLE
from coldbench.models import model_file
from coldbench.training import checkpoints, distributed, loop
from coldbench.training.slurm import LOCK, SIGN_OF_LIFE

CPU = torch.device("cpu")
LOSS, WEIGHT = 1e-4, 2e-3  # relative; absolute, of weights that moved by up to 12 updates of 1e-3 each
WORKER = """
import os, signal, sys, torch
torch.set_num_threads(1)
from coldbench import checkpoint, cli, train
original, batch, calls, batches = loop.optimizer_step, loop.training_batch, [], []
def update(*args, **kwargs):
    result = original(*args, **kwargs)
    calls.append(1)
    if str(len(calls)) == os.environ.get("STOP_AT"):
        signal.raise_signal(int(os.environ["STOP_BY"]))
    return result
def save_state(folder, done, state, original=checkpoints.save_state):
    print("saved", done, flush=True)
    original(folder, done, state)
def training_batch(*args):
    batches.append(1)
    x0, xt, t = batch(*args)
    return (x0 * float("nan") if str(len(batches)) == os.environ.get("SPOIL_AT") else x0), xt, t
loop.optimizer_step, loop.training_batch, checkpoints.save_state = update, training_batch, save_state
cli.main()
"""
Processes = list[subprocess.Popen]


def environment(**variables: object) -> dict[str, str]:
    """This process's environment without any launcher's variables, and with `variables`."""
    launchers = ("SLURM_", "TORCHELASTIC", "WORLD_SIZE", "RANK", "LOCAL_", "GROUP_", "ROLE_", "MASTER_")
    rest = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    return rest | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in variables.items()}


def words(experiment: Experiment, prepared: Path, folder: Path) -> list[str]:
    """The command's words."""
    given = ["train", "--experiment", experiment.model_dump_json(), "--data", str(prepared), "--device", "cpu"]
    return [*given, "--threads", "1", "--out", str(folder / "model.safetensors"), "--work", str(folder / "work")]


def port() -> int:
    """A free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started(given: list[str], each: list[dict[str, str]]) -> Processes:
    """The same command once per environment."""
    run = [sys.executable, "-c", WORKER, *given]
    pipe = subprocess.PIPE
    return [subprocess.Popen(run, env=variables, stdout=pipe, stderr=pipe, text=True) for variables in each]


def ended(processes: Processes, seconds: float = 120) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each; none is left behind."""
    try:
        told = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def as_torchrun(count: int) -> list[dict[str, str]]:
    """What torchrun tells its processes."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(), "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1}
    return [environment(**shared, RANK=rank, LOCAL_RANK=rank) for rank in range(count)]


def as_srun(count: int, name: str) -> list[dict[str, str]]:
    """What srun tells its tasks, in a job of that name."""
    shared = {"SLURM_JOB_ID": 10_000 + port() % 10_000, "SLURM_JOB_NAME": name, "SLURM_NODELIST": "localhost"}
    shared |= {"SLURM_NTASKS": count, "SLURM_NTASKS_PER_NODE": count, "SLURM_NNODES": 1, "SLURM_NODEID": 0}
    shared |= {"SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": count, "SLURM_STEP_NUM_NODES": 1}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    return [environment(**shared, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in range(count)]


def outcome(folder: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """The training log and the weights."""
    lines = [json.loads(line) for line in (folder / "model.jsonl").read_text().splitlines()]
    return lines, safetensors.torch.load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    """Results of one process by experiment, made when they are asked for."""
    return {"folder": tmp_path_factory.mktemp("alone")}


@pytest.fixture
def check(alone: dict, experiment: Experiment, digits: Path):
    """A function that compares the result in a folder with that of one undisturbed process."""

    def compare(folder: Path, exact: bool = False) -> None:
        if "result" not in alone:
            out = alone["folder"]
            loop.train(experiment, digits, out / "model.safetensors", out / "work", CPU)
            alone["result"] = outcome(out)
        (lines, weights), (expected_lines, expected) = outcome(folder), alone["result"]
        tolerance = (0, 0) if exact else (LOSS, WEIGHT)
        for key in ("step", "images"):
            assert [line[key] for line in lines] == [line[key] for line in expected_lines]
        for key, factor in (("loss", 1), ("grad_norm", 10)):
            found, wanted = ([line[key] for line in each] for each in (lines, expected_lines))
            np.testing.assert_allclose(found, wanted, rtol=factor * tolerance[0], err_msg=key)
        assert weights.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, rtol=0, atol=tolerance[1])

    return compare


def left(folder: Path) -> set[str]:
    """The names of the files in a folder and below, but for the lock, which filelock may keep or remove."""
    return {path.name for path in folder.rglob("*") if path.is_file()} - {LOCK}


def saves(told: list[tuple[int, str, str]]) -> list[list[str]]:
    """Which updates each process saved."""
    return [[line.split()[1] for line in out.splitlines() if line.startswith("saved ")] for _, out, _ in told]


@pytest.mark.slow
def test_torchrun_trains_what_one_process_trains(experiment, digits, tmp_path, check) -> None:
    """`torchrun --nproc-per-node 2 coldbench train`: the loss of every update and the weights of one process."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port())]
    command = [*launch, "--no-python", sys.executable, "-c", WORKER, *words(experiment, digits, tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    check(tmp_path)
    model = model_file.load_model(tmp_path / "model.safetensors", 1, CPU)
    assert model.provenance["world_size"] == 2
    assert done.stdout.count("saved 12") == 1, "one process writes"
    assert left(tmp_path / "work") == {"step-000000012.pt", checkpoints.POINTER, SIGN_OF_LIFE, "train.log"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coldbench", "interactive"])
def test_srun_trains_what_one_process_trains(experiment, digits, tmp_path, check, name) -> None:
    """Two tasks as srun starts them; `salloc` calls its jobs interactive."""
    told = ended(started(words(experiment, digits, tmp_path), as_srun(2, name)), 60)
    assert [status for status, _, _ in told] == [0, 0], told
    check(tmp_path)
    assert saves(told) == [["12"], []]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all(experiment, digits, tmp_path, check, rank) -> None:
    """They save once, at the same update, and end with status 75; one process alone then goes on to the same end."""
    each = as_torchrun(2)
    each[rank] |= {"STOP_AT": "5", "STOP_BY": str(int(signal.SIGTERM))}
    told = ended(started(words(experiment, digits, tmp_path), each))
    assert [status for status, _, _ in told] == [RESUMABLE] * 2, told
    assert saves(told) == [["5"], []]
    assert [path.name for path in (tmp_path / "work").glob("*.pt")] == ["step-000000005.pt"]
    assert not (tmp_path / "model.safetensors").exists()
    for _, _, err in told:
        assert "stopped by SIGTERM; finished work is kept" in err
        assert "Traceback" not in err
    [(status, _, err)] = ended(started(words(experiment, digits, tmp_path), [environment()]))
    assert status == 0, err
    assert "resuming at step 5 of 12" in err
    check(tmp_path)


@pytest.mark.slow
def test_two_processes_resume_what_one_began(experiment, digits, tmp_path, check) -> None:
    """The other way round; both processes go on from the one checkpoint."""
    stop = {"STOP_AT": "7", "STOP_BY": str(int(signal.SIGUSR1))}
    [(status, _, _)] = ended(started(words(experiment, digits, tmp_path), [environment(**stop)]))
    assert status == RESUMABLE
    told = ended(started(words(experiment, digits, tmp_path), as_torchrun(2)))
    assert [status for status, _, _ in told] == [0, 0], told
    check(tmp_path)


@pytest.mark.slow
def test_an_uneven_share_is_refused_in_one_line(experiment, digits, tmp_path) -> None:
    """A micro-batch of 3 images and 2 processes: every process says so and ends; none waits."""
    training = experiment.training.model_copy(update={"batch_size": 6})
    odd = experiment.model_copy(update={"training": training})
    told = ended(started(words(odd, digits, tmp_path), as_torchrun(2)), 60)
    for status, _, err in told:
        assert status == 1
        errors = [line for line in err.splitlines() if line.startswith("coldbench: error:")]
        assert errors == ["coldbench: error: a micro-batch of 3 images cannot be shared evenly by 2 processes"]
        assert "Traceback" not in err
    assert left(tmp_path) == {"train.log"}


@pytest.mark.slow
def test_a_bad_batch_of_one_process_ends_all(experiment, digits, tmp_path) -> None:
    """A loss that is not finite in one process's share is told by both, and nothing is saved."""
    each = as_torchrun(2)
    each[1]["SPOIL_AT"] = "9"  # two micro-batches an update
    told = ended(started(words(experiment, digits, tmp_path), each), 60)
    assert [status for status, _, _ in told] == [1, 1]
    lines = [[line for line in err.splitlines() if line.startswith("coldbench: error:")] for _, _, err in told]
    assert lines[0] == lines[1]
    assert "the loss or its gradient is not finite at step 5 (images from 32, " in lines[0][0]
    assert saves(told) == [[], []]
    assert left(tmp_path) == {"train.log", SIGN_OF_LIFE}


IN_A_JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "snakejob"}
BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No launcher's variables in this process."""
    for key in os.environ.keys() - environment().keys():
        monkeypatch.delenv(key)
    return monkeypatch


@pytest.mark.slow
def test_one_process_inside_a_job_waits_for_nobody(experiment, digits, tmp_path, check) -> None:
    """A job of 4 tasks surrounds it, but srun has not started it: it trains alone, to the same bits."""
    job = environment(**IN_A_JOB, SLURM_NTASKS_PER_NODE=2, SLURM_NODELIST="node[1-2]")
    [(status, _, err)] = ended(started(words(experiment, digits, tmp_path), [job]), 60)
    assert status == 0, err
    check(tmp_path, exact=True)


def test_how_many_processes_there_are(bare) -> None:
    """torchrun's count, or that of srun's step; a job around a lone process does not count."""
    assert distributed.processes() == 1
    for key, value in IN_A_JOB.items():
        bare.setenv(key, value)
    assert distributed.processes() == 1
    for key, value in as_srun(4, "job")[2].items():
        bare.setenv(key, value)
    assert distributed.processes() == 4
    bare.setenv("WORLD_SIZE", "8")
    assert distributed.processes() == 8, "torchrun inside a Slurm job"


def test_a_batch_script_is_one_process(bare) -> None:
    """What sbatch tells its script: the job's tasks and rank 0, but no step."""
    for key, value in (IN_A_JOB | BATCH).items():
        bare.setenv(key, value)
    assert distributed.processes() == 1


def test_nodes_that_cannot_share_are_refused(bare) -> None:
    """Before anything waits for anybody."""
    for key, value in {"WORLD_SIZE": "3", "GROUP_WORLD_SIZE": "2"}.items():
        bare.setenv(key, value)
    with pytest.raises(ColdbenchError, match="3 processes cannot be shared evenly among 2 nodes"):
        distributed.fabric(CPU, "fp32")


class Ranked:
    """A fabric's place among its processes."""

    def __init__(self, world_size: int, global_rank: int) -> None:
        self.world_size, self.global_rank = world_size, global_rank


@pytest.mark.parametrize(("batch", "count"), [(8, 1), (8, 2), (12, 3), (4, 4)])
def test_shares_make_up_the_batch(batch: int, count: int) -> None:
    """Together the shares are every image once, in order."""
    shares = [distributed.share(batch, Ranked(count, rank)) for rank in range(count)]
    assert [image for first, many in shares for image in range(first, first + many)] == list(range(batch))
    assert len({many for _, many in shares}) == 1
    with pytest.raises(ColdbenchError, match=f"a micro-batch of {batch} images cannot be shared evenly by 5 processes"):
        distributed.share(batch, Ranked(5, 0))
