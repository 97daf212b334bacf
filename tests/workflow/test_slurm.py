"""The workflow on a real Slurm: `make test-slurm`, as root on a machine that has no Slurm of its own.

slurm_node.py brings it up. Trainings are disturbed in every way that clusters know; the weights are compared, bit for
bit, with those of undisturbed ones on this machine. Until its disturbance a training is frozen (SIGSTOP), so that it is
in the middle of its work on any machine and takes nothing of a processor.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import slurm_node
import yaml
from checkout import TINY, Checkout, assert_same_weights, end_group, wait_for

from coldbench.core.validation import merged

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(slurm_node.absent()), reason=f"no Slurm here: {slurm_node.absent()}"),
]
PATIENCE = 1500  # seconds until a run counts as hung, on a busy machine
PROFILE = ("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "5")
SNAKEMAKE = (sys.executable, slurm_node.__file__.replace("slurm_node", "slurm_snakemake"))
TRACKINGS = [
    "linuxproc",
    pytest.param("cgroup", marks=pytest.mark.skipif(not slurm_node.cgroups(), reason="no cgroups of version 1 here")),
]

NAMES = ("X1", "X2", "X3", "X4")
TRAINING = {"max_steps": 300, "ema_start": 100}
DISTURBED: dict[str, Any] = merged(
    copy.deepcopy({key: value for key, value in TINY.items() if key != "grid"}),  # keys are deleted from it below
    {
        "experiments": list(NAMES),
        "checkpoint_every": 0.5,
        "grid": {
            name: merged(TINY["grid"]["X1"], {"degradation": {"std": 1.0 + 0.1 * k}, "training": TRAINING})
            for k, name in enumerate(NAMES)
        },
    },
)
for key in TRAINING:
    del DISTURBED["budgets"]["tiny"]["training"][key]  # which would take precedence
MODELS = [f"results/tiny/{name}-a/model.safetensors" for name in NAMES]
SHORT, USABLE = 2, 60
"""A time limit in minutes, and the seconds of it in which a job trains."""


# What Slurm knows


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def jobs() -> dict[int, dict[str, str]]:
    """Everything that Slurm knows of every job."""
    text = output_of("scontrol", "--oneliner", "show", "job") if output_of("squeue", "-h", "-t", "all") else ""
    records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
    return {int(job["JobId"]): job for job in records}


def rule(job: dict[str, str]) -> str:
    match = re.fullmatch(r"rule_(\w+?)_wildcards_.*", job["Comment"])
    return match[1] if match else ""


def jobs_of(run: str) -> list[dict[str, str]]:
    """The jobs that trained `run`, one for each time that Snakemake submitted it."""
    return [job for job in jobs().values() if job["Comment"].endswith(f"_{run}") and rule(job) == "train"]


def limit_job(job: str, minutes: int) -> None:
    subprocess.run(["scontrol", "update", f"jobid={job}", f"timelimit={minutes}"], check=True)


@contextmanager
def impatience() -> Iterator[None]:
    """Slurm holds a job for two minutes that was queued again; here it does not."""
    over = threading.Event()

    def free() -> None:
        while not over.wait(2):
            held = subprocess.run(["squeue", "-h", "-t", "PD", "-o", "%i %r"], capture_output=True, text=True)
            for line in held.stdout.splitlines():
                number, reason = line.split(maxsplit=1)
                if "BeginTime" in reason:
                    subprocess.run(["scontrol", "update", f"jobid={number}", "starttime=now"], capture_output=True)

    thread = threading.Thread(target=free)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# The whole grid


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkout, list[dict[str, str]], str]]:
    """A part of the smoke grid, run by the very command that the README gives; and Slurm's records of its jobs.

    It has every kind of job: a restoration, a generation from a partner's images, and a run that samples the model of
    another.
    """
    checkout = Checkout(tmp_path_factory.mktemp("grid"), SNAKEMAKE)
    with slurm_node.running():
        some = "experiments=[E01, E18, A3]"
        smoke = ("--configfile", "workflow/config/smoke.yaml", "--config", some)
        ended = checkout.snakemake(*PROFILE, "all", *smoke, patience=PATIENCE)
        assert ended.status == 0, ended.end
        yield checkout, list(jobs().values()), ended.output
        again = checkout.snakemake("-n", *PROFILE, "all", *smoke)
        assert "Nothing to be done" in again.output


def test_grid_runs_to_its_report(grid: tuple[Checkout, list[dict[str, str]], str]) -> None:
    checkout, _, output = grid
    page = (checkout.folder / "reports/smoke/index.html").read_text()
    assert "smoke run" in page.lower()
    assert (checkout.folder / "results/smoke/scores.parquet").exists()
    assert len(list((checkout.folder / "results/smoke").glob("*/scores.parquet"))) == 3
    assert "100%" in output


def test_every_job_requests_its_resources(grid: tuple[Checkout, list[dict[str, str]], str]) -> None:
    _, records, _ = grid
    count = {name: sum(rule(job) == name for job in records) for name in {rule(job) for job in records}}
    assert count == {"prepare": 2, "train": 2, "sample": 3, "evaluate": 3}  # all else runs on the login node
    for job in records:
        assert job["JobState"] == "COMPLETED", job
        assert job["Requeue"] == "1"
        on_gpu = rule(job) != "prepare"
        assert job["Partition"] == ("gpu" if on_gpu else "cpu")
        assert job.get("TresPerJob", "") == ("gres:gpu:1" if on_gpu else "")
        assert job["MinMemoryNode"] == ("16000M" if on_gpu else "4000M")
        limit = {"train": "1-00:00:00", "sample": "04:00:00", "evaluate": "04:00:00", "prepare": "01:00:00"}
        assert job["TimeLimit"] == limit[rule(job)]
        assert job["NumCPUs"] == "1"


# Disturbed trainings


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same models, trained on this machine without Slurm."""
    checkout = Checkout(tmp_path_factory.mktemp("undisturbed"))
    (checkout.folder / "tiny.yaml").write_text(yaml.safe_dump(DISTURBED))
    ended = checkout.snakemake("--cores", "2", *MODELS, "--configfile", "tiny.yaml", patience=PATIENCE)
    assert ended.status == 0, ended.end
    return checkout.folder


def prepare(folder: Path, undisturbed: Path, minutes: int) -> Checkout:
    """A checkout with the prepared images, whose profile gives a training `minutes`."""
    checkout = Checkout(folder, SNAKEMAKE)
    shutil.copytree(undisturbed / "results" / "data", folder / "results" / "data")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(DISTURBED))
    profile = folder / "workflow/profiles/slurm/config.yaml"
    text = profile.read_text()
    assert text.count("time_limit = 1440") == 1
    profile.write_text(text.replace("time_limit = 1440", f"time_limit = {minutes}"))
    return checkout


def checkpoints(folder: Path, run: str) -> Path:
    return folder / "results" / "tiny" / run / "checkpoints"


def log(folder: Path, run: str) -> str:
    """Everything that the jobs of a training said."""
    return "".join(path.read_text() for path in checkpoints(folder, run).glob("*/train.log"))


@dataclass(frozen=True)
class Frozen:
    """A training in the middle of its work: its process, its Slurm job, and the time since when it stands still."""

    pid: int
    job: str
    since: float


def frozen(snakemake: subprocess.Popen[str], folder: Path, runs: Sequence[str]) -> dict[str, Frozen]:
    """Freeze each training as soon as it has saved its first checkpoint.

    Slurm's limit becomes an hour, so that a busy machine does not reach it meanwhile; the training's own clock runs on.
    """
    found: dict[str, Frozen] = {}

    def all_are() -> bool:
        for run in runs:
            if run not in found and any(checkpoints(folder, run).glob("*/step-*.pt")):
                (path,) = checkpoints(folder, run).glob("*/heartbeat.json")
                beat = json.loads(path.read_text())
                os.kill(beat["pid"], signal.SIGSTOP)
                limit_job(beat["job"], 60)
                found[run] = Frozen(beat["pid"], beat["job"], time.monotonic())
        return len(found) == len(runs)

    wait_for(snakemake, all_are, PATIENCE)
    assert not any((folder / "results" / "tiny" / run / "model.safetensors").exists() for run in runs)
    return found


def assert_resumed_to_the_same_weights(folder: Path, undisturbed: Path, runs: Sequence[str]) -> None:
    for run in runs:
        assert_same_weights(folder / "results/tiny" / run, undisturbed / "results/tiny" / run)
        assert "resuming at step" in log(folder, run)


@pytest.mark.parametrize("tracking", TRACKINGS)
def test_disturbed_trainings_end_with_the_same_weights(tmp_path: Path, undisturbed: Path, tracking: str) -> None:
    """Queued again by an administrator, killed, out of time by Slurm's clock and by their own, all in one run."""
    checkout = prepare(tmp_path, undisturbed, SHORT)
    runs = [f"{name}-a" for name in NAMES]
    requeued, killed, timed_out, late = runs
    with slurm_node.running(tracking), impatience():
        snakemake = checkout.start(*PROFILE, *MODELS, "--configfile", "tiny.yaml")
        try:
            first = frozen(snakemake, tmp_path, runs)
            # Slurm lets a frozen process continue before it sends SIGTERM
            subprocess.run(["scontrol", "requeue", first[requeued].job], check=True)  # as a preemption does
            os.kill(first[killed].pid, signal.SIGKILL)
            limit_job(first[timed_out].job, 1)
            time.sleep(max(0.0, first[late].since + USABLE - time.monotonic()))
            os.kill(first[late].pid, signal.SIGCONT)
            output, _ = snakemake.communicate(timeout=PATIENCE)
        finally:
            end_group(snakemake)
        assert snakemake.returncode == 0, output[-3000:]
        jobs_by_run = {run: jobs_of(run) for run in runs}
    assert_resumed_to_the_same_weights(tmp_path, undisturbed, runs)
    for run in (requeued, late):
        (job,) = jobs_by_run[run]  # Snakemake saw none of it
        assert int(job["Restarts"]) >= 1
    for run, state in ((killed, "FAILED"), (timed_out, "TIMEOUT")):
        assert [job["JobState"] for job in jobs_by_run[run]][:1] == [state]
        assert len(jobs_by_run[run]) >= 2
    assert "stopped by SIGTERM" in log(tmp_path, requeued)  # its step heard of its end, and saved
    assert "stopped before its time limit" in log(tmp_path, late)
    assert f"job {first[late].job} is requeued" in log(tmp_path, late)


def test_trainings_outlive_their_snakemake_and_resume_after_their_node_went_down(
    tmp_path: Path, undisturbed: Path
) -> None:
    """The power fails for Snakemake, then on the node; typed again, the command goes on where the work stood.

    While the first job of a model still runs, a second one is refused, and says which job to wait for.
    """
    checkout = prepare(tmp_path, undisturbed, 60)
    runs = [f"{name}-a" for name in NAMES[:2]]
    command = (*PROFILE, *MODELS[:2], "--configfile", "tiny.yaml")
    with slurm_node.running(), impatience():
        snakemake = checkout.start(*command)
        try:
            first = frozen(snakemake, tmp_path, runs)
        finally:
            end_group(snakemake)  # SIGKILL
        assert "--unlock" in checkout.snakemake(*command).output
        assert checkout.snakemake(*command, "--unlock").status == 0
        second = checkout.start(*command, "--retries", "0")
        try:
            wait_for(second, lambda: all("trains this model already" in log(tmp_path, run) for run in runs), PATIENCE)
        finally:
            end_group(second)
        for run in runs:
            assert f"job {first[run].job} on " in log(tmp_path, run)
            assert output_of("squeue", "-h", "-j", first[run].job, "-o", "%T").strip() == "RUNNING"

        slurm_node.kill_slurmd()
        for training in first.values():
            os.kill(training.pid, signal.SIGKILL)
        slurm_node.wait("node down", lambda: slurm_node.state() == "down", 120)
        slurm_node.start_slurmd()
        output_of("scancel", "--user=root")  # Slurm would run them again; the command that is typed again must do it
        slurm_node.wait("no jobs", lambda: not output_of("squeue", "-h"), 120)
        assert checkout.snakemake(*command, "--unlock").status == 0
        ended = checkout.snakemake(*command, "--rerun-incomplete", patience=PATIENCE)
        assert ended.status == 0, ended.end
    assert_resumed_to_the_same_weights(tmp_path, undisturbed, runs)
