"""`coldbench status`: every status of a run, from files that the real code wrote; damage is never an error."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import safetensors.torch
import torch
from cases import ROOT

from coldbench import planning
from coldbench.core.files import write_json
from coldbench.core.run import Run
from coldbench.core.validation import merged
from coldbench.models import model_file
from coldbench.planning.plan import resolved
from coldbench.planning.status import HEARTBEAT_TIMEOUT, RunStatus, as_json, as_text, description, run_statuses
from coldbench.sampling import shards
from coldbench.training import checkpoints, loop, slurm

NOW = 1_800_000_000.0
CONFIG: dict[str, Any] = {
    "budget": "tiny",
    "budgets": {
        "tiny": {
            "network": {"dim": 8, "dim_mults": [1, 2]},
            "training": {"max_steps": 12, "batch_size": 8, "ema_update_every": 2, "learning_rate": 1e-3},
            "sampling": {"images": 2},
        }
    },
    "grid": {
        "X1": {
            "title": "own model",
            "dataset": "digits",
            "size": 16,
            "protocol": "a",
            "protocols": {"a": {}, "b": {"degradation": {"T": 3}}},
            "degradation": {"name": "superresolution", "T": 2},
        },
        "X2": {"title": "another's model", "model": "X1"},
    },
}


class Results:
    """A results folder, and the statuses of its runs."""

    def __init__(self, folder: Path, **overlay: Any) -> None:
        self.folder = folder / "results"
        self.grid = resolved(merged(CONFIG, {"results": str(self.folder)}, overlay))

    def run(self, name: str = "X1-a") -> Run:
        return self.grid.all_runs[name]

    def run_folder(self, name: str = "X1-a") -> Path:
        return self.folder / "tiny" / name

    @property
    def model(self) -> Path:
        return self.run_folder() / "model.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.run_folder() / "checkpoints" / self.run().experiment.fingerprint

    def save_checkpoint(self, step: int) -> None:
        checkpoints.save_state(self.checkpoints, step, {"step": step})

    def save_model(self, **provenance: Any) -> None:
        model_file.save_model(self.model, {"w": torch.zeros(9)}, self.run().experiment, 1, provenance)
        self.model.with_suffix(".jsonl").touch()

    def beat(self, state: str, age: float = 0.0, error: str = "", host: str = "node7", **facts: Any) -> None:
        progress = {"step": 6, "max_steps": 12, "images_per_second": 2.0, "seconds_left": 24.0, **facts}
        slurm.Heartbeat(self.checkpoints, **progress).write(state, error)
        beat = json.loads((self.checkpoints / slurm.HEARTBEAT).read_text())
        write_json(self.checkpoints / slurm.HEARTBEAT, {**beat, "time": NOW - age, "host": host})

    def statuses(self) -> dict[str, RunStatus]:
        return {status.run: status for status in run_statuses(self.grid, NOW)}

    def status(self, name: str = "X1-a") -> RunStatus:
        return self.statuses()[name]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def test_empty_results_are_missing_and_a_borrowed_model_is_awaited(results: Results) -> None:
    statuses = results.statuses()
    assert list(statuses) == ["X1-a", "X2-a"], "other protocols appear once they have a folder"
    assert statuses["X1-a"] == RunStatus("X1-a", "tiny", "own model", "X1-a", 12, "missing")
    assert (statuses["X2-a"].status, statuses["X2-a"].model) == ("waiting", "X1-a")
    assert not results.folder.exists()


def test_other_protocols_with_a_folder_and_owners_of_models_are_listed(results: Results, tmp_path: Path) -> None:
    results.run_folder("X1-b").mkdir(parents=True)
    assert list(results.statuses()) == ["X1-a", "X2-a", "X1-b"]
    assert list(Results(tmp_path / "alone", experiments=["X2"]).statuses()) == ["X2-a", "X1-a"]


def test_running_training_shows_its_progress_and_place(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    results.save_checkpoint(4)
    results.beat("running", age=10)
    status = results.status()
    assert (status.status, status.step, status.host, status.job) == ("running", 6, "node7", "41")
    assert status.seconds_left == 14, "the age of the heartbeat has passed"
    assert description(status) == "step 6 of 12 · 2 images/s · 0:14 left · on node7, job 41"
    assert results.status("X2-a").status == "waiting"


@pytest.mark.parametrize(
    ("left", "age", "shown"), [(90_061.0, 0, "25:01:01"), (5.0, 60, "0:00"), (None, 0, "?"), (20.0, -30, "0:20")]
)
def test_time_left_is_sensible(results: Results, left: float | None, age: float, shown: str) -> None:
    """Hours are not cut at a day; a late training, an unknown rate and a clock ahead of ours give sensible times."""
    results.beat("running", age, seconds_left=left)
    assert f" · {shown} left · " in description(results.status())


@pytest.mark.parametrize(("age", "expected"), [(HEARTBEAT_TIMEOUT, "running"), (HEARTBEAT_TIMEOUT + 1, "stopped")])
@pytest.mark.parametrize("saved", [4, 0])
def test_training_without_heartbeat_is_stopped_at_its_checkpoint(
    results: Results, age: float, expected: str, saved: int
) -> None:
    if saved:
        results.save_checkpoint(saved)
    results.beat("running", age)
    status = results.status()
    assert (status.status, status.step) == (expected, 6 if expected == "running" else saved)
    assert ("no heartbeat since" in status.note) == (expected == "stopped")


@pytest.mark.parametrize("saved", [True, False])
def test_failed_training_shows_its_error(results: Results, saved: bool) -> None:
    if saved:
        results.save_checkpoint(4)
    results.beat("failed", age=1, error="the loss is not finite at step 5")
    status = results.status()
    assert (status.status, status.step) == ("failed", 4 if saved else 0)
    assert "the loss is not finite at step 5" in description(status)
    assert ("checkpoint at step 4 of 12" in description(status)) == saved


def test_stopped_training_resumes_from_its_newest_checkpoint(results: Results) -> None:
    for step in (3, 5, 6):
        results.save_checkpoint(step)
    assert (results.status().status, results.status().step) == ("stopped", 6), "without a heartbeat"
    results.beat("stopped", age=7_000)
    assert (results.status().status, results.status().step, results.status().note) == ("stopped", 6, "")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"state": "running"}', "\x00\xff", "[" * 100_000])
def test_damaged_heartbeat_counts_as_none(results: Results, text: str) -> None:
    results.checkpoints.mkdir(parents=True)
    (results.checkpoints / slurm.HEARTBEAT).write_text(text, encoding="latin-1")
    assert results.status().status == "missing"
    results.save_checkpoint(3)
    assert (results.status().status, results.status().step) == ("stopped", 3)


@pytest.mark.parametrize(
    "facts",
    [
        {"step": -1},
        {"step": "many"},
        {"seconds_left": float("nan")},
        {"seconds_left": 1e300},
        {"time": 1e300},
        {"host": 7},
    ],
)
def test_heartbeat_out_of_range_counts_as_none(results: Results, facts: dict[str, Any]) -> None:
    results.beat("running")
    path = results.checkpoints / slurm.HEARTBEAT
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    assert results.status().status == "missing"


def test_finished_model_shows_its_device_and_serves_its_borrowers(results: Results) -> None:
    results.save_checkpoint(12)
    results.beat("running", step=12)
    results.save_model(trained_on="a GPU")
    os.utime(results.model, (NOW - 60, NOW - 60))
    status = results.status()
    assert (status.status, status.time, status.device) == ("done", NOW - 60, "a GPU")
    assert (results.status("X2-a").status, results.status("X2-a").model) == ("done", "X1-a")
    assert "the model of X1-a" in description(results.status("X2-a"))


def test_imported_model_shows_its_source(results: Results) -> None:
    results.save_model(imported="released.pt")
    assert (results.status().status, results.status().source) == ("imported", "released.pt")
    assert results.status("X2-a").status == "imported"


def test_model_of_other_settings_is_outdated(results: Results, tmp_path: Path) -> None:
    results.save_model()
    changed = Results(tmp_path, budgets={"tiny": {"training": {"learning_rate": 2e-3}}})
    assert changed.status().status == "outdated"


def test_unreadable_model_is_damaged_and_no_error(results: Results) -> None:
    results.save_model()
    content = results.model.read_bytes()
    for damaged in (b"", content[:5], content[:100], content[:-1], bytes(len(content)), content + b"more"):
        results.model.write_bytes(damaged)
        assert results.status().status == "damaged"
    for metadata in ({}, {"experiment": "no JSON"}, {"experiment": "[]"}, {"experiment": '{"provenance": 3}'}):
        safetensors.torch.save_file({"w": torch.zeros(9)}, results.model, metadata)
        assert results.status().status == "damaged"
    results.model.unlink()
    results.model.mkdir()
    assert results.status().status == "damaged"


def test_shards_without_a_manifest_are_partly_sampled(results: Results) -> None:
    shards.Shard("test", "direct", range(2), results.run_folder() / "shards" / "test-0").write(
        np.zeros((2, 1, 4, 4)), 1, 0.1
    )
    assert (results.status().samples, results.status().scores) == ("partly", "")


@pytest.mark.parametrize(
    ("host", "held", "age", "expected"),
    [
        (socket.gethostname(), True, 10_000.0, "running"),  # the disk is full, so heartbeats are not written
        (socket.gethostname(), False, 1.0, "stopped"),  # killed a second ago
        (socket.gethostname(), False, -10_000.0, "stopped"),  # the clock was set back
        ("node7", True, 10_000.0, "running"),
        ("node7", False, 1.0, "running"),  # locks of some file systems stay within a host
        ("node7", False, -10_000.0, "stopped"),
    ],
)
def test_lock_tells_whether_a_training_runs(results: Results, host: str, held: bool, age: float, expected: str) -> None:
    results.beat("running", age, host=host)
    (results.checkpoints / slurm.LOCK).touch()
    with filelock.FileLock(results.checkpoints / slurm.LOCK) if held else contextlib.nullcontext():
        assert results.status().status == expected
    assert results.status("X2-a").status == "waiting"


def test_json_and_text_agree(results: Results) -> None:
    results.beat("running")
    statuses = list(results.statuses().values())
    assert [RunStatus(**entry) for entry in json.loads(as_json(statuses))] == statuses
    text = as_text(statuses).splitlines()
    assert [row.split()[:3] for row in text[1:3]] == [["X1-a", "tiny", "running"], ["X2-a", "tiny", "waiting"]]
    assert text[-1] == "1 running, 1 waiting"


def test_real_training_is_stopped_and_then_done(tmp_path: Path, digits: Path) -> None:
    results = Results(tmp_path)
    paths = loop.TrainingPaths(digits, results.model, results.checkpoints)
    arguments = (results.run().experiment, paths, torch.device("cpu"))
    with pytest.raises(loop.Interrupted):
        loop.train(*arguments, loop.LoopOptions(stop_after=0.0))
    stopped = run_statuses(results.grid, time.time())[0]
    assert (stopped.status, stopped.step, stopped.note) == ("stopped", 1, "")
    assert stopped.host
    loop.train(*arguments)
    done = run_statuses(results.grid, time.time())[0]
    assert done.status == "done"
    assert done.device.startswith("CPU")
    assert done.time == pytest.approx(time.time(), abs=60)


def test_status_and_plan_load_no_torch_and_write_nothing(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(f"budget: laptop\nexperiments: [E01, A3]\nresults: {tmp_path / 'results'}\n")
    code = "import sys; from coldbench.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"

    def typed(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    ended = typed("status", overlay, "--json")
    assert ended.returncode == 0, ended.stderr
    statuses = {entry["run"]: entry for entry in json.loads(ended.stdout)}
    assert (statuses["E01-fitted"]["status"], statuses["A3-fitted"]["model"]) == ("missing", "E01-fitted")
    assert statuses["E01-fitted"]["budget"] == "laptop"
    plan = typed("plan")
    assert plan.returncode == 0, plan.stderr
    assert not (tmp_path / "results").exists()
    overlay.write_text("budget: labtop")
    assert "'laptop'?" in typed("status", overlay).stderr
    assert typed("status", tmp_path / "none.yaml").returncode == 1


def test_no_module_of_planning_loads_torch() -> None:
    modules = sorted(f"coldbench.planning.{path.stem}" for path in Path(planning.__file__).parent.glob("[a-z]*.py"))
    code = f"import sys, {', '.join(modules)}; assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
