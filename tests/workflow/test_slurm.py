"""The workflow on a real Slurm: `make test-slurm`, as root on a machine that has no Slurm of its own.

slurm_node.py brings it up. Trainings are disturbed in every way that clusters know; the weights are compared, bit for
bit, with those of undisturbed ones on this machine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

STEPS = {"X1": 1200, "X2": 1200, "X3": 1200, "X4": 4500}
NAMES = tuple(STEPS)
DISTURBED: dict[str, Any] = merged(
    {key: value for key, value in TINY.items() if key != "grid"},
    {
        "experiments": list(NAMES),
        "checkpoint_every": 2,
        "grid": {  # the last one needs more than one time limit, on any machine
            name: merged(TINY["grid"]["X1"], {"degradation": {"std": 1.0 + 0.1 * k}, "training": {"max_steps": steps}})
            for k, (name, steps) in enumerate(STEPS.items())
        },
        "budgets": {"tiny": {"training": {"ema_start": 100}}},
    },
)
del DISTURBED["budgets"]["tiny"]["training"]["max_steps"]
MODELS = [f"results/tiny/{name}-a/model.safetensors" for name in NAMES]


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

    It has every kind of job: a partner's images, a generation, and a run that samples the model of another.
    """
    checkout = Checkout(tmp_path_factory.mktemp("grid"), SNAKEMAKE)
    with slurm_node.running():
        some = "experiments=[E01, E04, E14_celeba, E18, A3]"
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
    assert len(list((checkout.folder / "results/smoke").glob("*/scores.parquet"))) == 5
    assert "100%" in output


def test_every_job_requests_its_resources(grid: tuple[Checkout, list[dict[str, str]], str]) -> None:
    _, records, _ = grid
    count = {name: sum(rule(job) == name for job in records) for name in {rule(job) for job in records}}
    assert count == {"prepare": 2, "train": 4, "sample": 5, "evaluate": 5}  # all else runs on the login node
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


def prepare(folder: Path, minutes: int) -> Checkout:
    """A checkout whose profile gives a training `minutes`."""
    checkout = Checkout(folder, SNAKEMAKE)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(DISTURBED))
    profile = folder / "workflow/profiles/slurm/config.yaml"
    text = profile.read_text()
    assert text.count("time_limit = 1440") == 1
    profile.write_text(text.replace("time_limit = 1440", f"time_limit = {minutes}"))
    return checkout


def heartbeat_of(folder: Path, run: str) -> dict[str, Any]:
    """The heartbeat of a training; {} before there is one."""
    for path in (folder / "results" / "tiny" / run / "checkpoints").glob("*/heartbeat.json"):
        seen: dict[str, Any] = json.loads(path.read_text())
        return seen
    return {}


def saved(folder: Path, run: str) -> bool:
    return any((folder / "results" / "tiny" / run / "checkpoints").glob("*/step-*.pt"))


def log(folder: Path, run: str) -> str:
    """Everything that the jobs of a training said."""
    paths = (folder / "results" / "tiny" / run / "checkpoints").glob("*/train.log")
    return "".join(path.read_text() for path in paths)


@pytest.mark.parametrize("tracking", TRACKINGS)
def test_disturbed_trainings_end_with_the_same_weights(tmp_path: Path, undisturbed: Path, tracking: str) -> None:
    """Queued again by an administrator, killed, out of time by Slurm's clock and by their own, all in one run.

    Under cgroups only the signals differ, so the training that stops by its own clock is left out: it takes minutes.
    """
    checkout = prepare(tmp_path, 2)
    names = NAMES if tracking == "linuxproc" else NAMES[:3]
    with slurm_node.running(tracking), impatience():
        snakemake = checkout.start(*PROFILE, *MODELS[: len(names)], "--configfile", "tiny.yaml")
        try:
            runs = [f"{name}-a" for name in names]
            wait_for(snakemake, lambda: all(saved(tmp_path, run) for run in runs), PATIENCE)
            first = {run: heartbeat_of(tmp_path, run) for run in runs}
            subprocess.run(["scontrol", "requeue", first["X1-a"]["job"]], check=True)  # as a preemption does
            os.kill(first["X2-a"]["pid"], signal.SIGKILL)
            subprocess.run(["scontrol", "update", f"jobid={first['X3-a']['job']}", "timelimit=1"], check=True)
            output, _ = snakemake.communicate(timeout=PATIENCE)
        finally:
            end_group(snakemake)
        assert snakemake.returncode == 0, output[-3000:]
        jobs_by_run = {run: jobs_of(run) for run in runs}
    for run in runs:
        assert_same_weights(tmp_path / "results/tiny" / run, undisturbed / "results/tiny" / run)
        assert "resuming at step" in log(tmp_path, run)
    messages = log(tmp_path, "X1-a")
    assert len(jobs_by_run["X1-a"]) == 1  # Snakemake saw none of it
    assert int(jobs_by_run["X1-a"][0]["Restarts"]) >= 1
    assert "stopped by SIGTERM" in messages  # its step heard of its end, and saved
    assert len(jobs_by_run["X2-a"]) == 2
    assert jobs_by_run["X2-a"][0]["JobState"] == "FAILED"
    assert [job["JobState"] for job in jobs_by_run["X3-a"]][:1] == ["TIMEOUT"]
    if "X4-a" in jobs_by_run:
        assert len(jobs_by_run["X4-a"]) == 1
        assert "stopped before its time limit" in log(tmp_path, "X4-a")
        assert f"job {first['X4-a']['job']} is requeued" in log(tmp_path, "X4-a")
        assert int(jobs_by_run["X4-a"][0]["Restarts"]) >= 1


def test_trainings_resume_after_their_node_went_down(tmp_path: Path, undisturbed: Path) -> None:
    """The power fails, on the node and for Snakemake alike; typed again, the command goes on where the work stood."""
    checkout = prepare(tmp_path, 60)
    runs = ["X1-a", "X2-a"]
    command = (*PROFILE, *MODELS[:2], "--configfile", "tiny.yaml")
    with slurm_node.running(), impatience():
        snakemake = checkout.start(*command)
        try:
            wait_for(snakemake, lambda: all(saved(tmp_path, run) for run in runs), PATIENCE)
            seen = [heartbeat_of(tmp_path, run) for run in runs]
        finally:
            end_group(snakemake)  # SIGKILL
        slurm_node.kill_slurmd()
        for one in seen:
            os.kill(one["pid"], signal.SIGKILL)
        slurm_node.wait("node down", lambda: slurm_node.state() == "down", 120)
        slurm_node.start_slurmd()
        output_of("scancel", "--user=root")  # Slurm would run them again; the command that is typed again must do it
        slurm_node.wait("no jobs", lambda: not output_of("squeue", "-h"), 120)
        assert "--unlock" in checkout.snakemake(*command).output
        assert checkout.snakemake(*command, "--unlock").status == 0
        ended = checkout.snakemake(*command, "--rerun-incomplete", patience=PATIENCE)
        assert ended.status == 0, ended.end
    for run in runs:
        assert_same_weights(tmp_path / "results/tiny" / run, undisturbed / "results/tiny" / run)
        assert "resuming at step" in log(tmp_path, run)


def test_second_job_of_a_model_is_refused_with_the_first_jobs_number(tmp_path: Path) -> None:
    """A job that outlived its Snakemake is not joined by a second one: the second says which job to wait for."""
    checkout = prepare(tmp_path, 60)
    command = (*PROFILE, MODELS[0], "--configfile", "tiny.yaml")
    with slurm_node.running(), impatience():
        snakemake = checkout.start(*command)
        try:
            wait_for(snakemake, lambda: saved(tmp_path, "X1-a"), PATIENCE)
        finally:
            end_group(snakemake)
        job = heartbeat_of(tmp_path, "X1-a")["job"]
        assert checkout.snakemake(*command, "--unlock").status == 0
        second = checkout.start(*command, "--retries", "0")
        try:
            wait_for(second, lambda: "trains this model already" in log(tmp_path, "X1-a"), PATIENCE)
        finally:
            end_group(second)
        assert f"job {job} on " in log(tmp_path, "X1-a")
        time.sleep(1)
        assert output_of("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING"
