"""`coldbench status`: every state of a run, told from files that the real code wrote; damage is never an error."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cases import ROOT

from coldbench.core.config import Run
from coldbench.core.files import write_json
from coldbench.core.validation import merged
from coldbench.models import model_file
from coldbench.planning import status
from coldbench.planning.status import Line, as_json, as_text, grid_of, states, words
from coldbench.sampling import shards
from coldbench.sampling.manifest import Manifest, write_manifest
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


class Site:
    """A results folder, and the lines that tell of it."""

    def __init__(self, folder: Path, **overlay: Any) -> None:
        self.results = folder / "results"
        self.grid = grid_of(merged(CONFIG, {"results": str(self.results)}, overlay))

    def run(self, name: str = "X1-a") -> Run:
        return self.grid.all_runs[name]

    def folder(self, name: str = "X1-a") -> Path:
        return self.results / "tiny" / name

    @property
    def model(self) -> Path:
        return self.folder() / "model.safetensors"

    @property
    def work(self) -> Path:
        return self.folder() / "checkpoints" / self.run().experiment.fingerprint

    def save(self, done: int) -> Path:
        checkpoints.save_state(self.work, done, {"done": done})
        return self.work / f"step-{done:09d}.pt"

    def finish(self, **origin: Any) -> None:
        model_file.save_model(self.model, {"w": torch.zeros(9)}, self.run().experiment, 1, origin)

    def alive(self, state: str, age: float = 0.0, error: str = "", **facts: Any) -> None:
        known = {"step": 6, "max_steps": 12, "images_per_second": 2.0, "seconds_left": 24.0, **facts}
        slurm.Heartbeat(self.work, **known).write(state, error)
        written = json.loads((self.work / slurm.HEARTBEAT).read_text())
        write_json(self.work / slurm.HEARTBEAT, {**written, "time": NOW - age, "host": "node7"})

    def lines(self) -> dict[str, Line]:
        return {line.run: line for line in states(self.grid, self.results, NOW)}

    def line(self, name: str = "X1-a") -> Line:
        return self.lines()[name]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_nothing_is_there(site: Site):
    lines = site.lines()
    assert list(lines) == ["X1-a", "X2-a"], "other protocols are told of once they have left something"
    assert lines["X1-a"] == Line("X1-a", "tiny", "own model", "X1-a", 12, "missing", "", "")
    assert (lines["X2-a"].state, lines["X2-a"].model) == ("waiting", "X1-a")
    assert words(lines["X2-a"]) == "for the model of X1-a: missing"
    assert not site.results.exists()


def test_other_protocols_and_owners_are_told_of(site: Site, tmp_path: Path):
    site.folder("X1-b").mkdir(parents=True)
    assert list(site.lines()) == ["X1-a", "X2-a", "X1-b"]
    alone = Site(tmp_path / "alone", experiments=["X2"])
    assert list(alone.lines()) == ["X2-a", "X1-a"]


def test_running(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    site.save(4)
    site.alive("running", age=10)
    line = site.line()
    assert (line.state, line.step, line.max_steps, line.host, line.job) == ("running", 6, 12, "node7", "41")
    assert line.seconds_left == 14, "what has passed since the sign is over"
    assert words(line) == "step 6 of 12 · 2 images/s · 0:14 left · on node7, job 41"
    assert words(site.line("X2-a")) == "for the model of X1-a: running"


@pytest.mark.parametrize(
    ("left", "age", "shown"), [(90_061.0, 0, "25:01:01"), (5.0, 60, "0:00"), (None, 0, "?"), (20.0, -30, "0:20")]
)
def test_time_left(site: Site, left: float | None, age: float, shown: str):
    """Hours are not cut at a day; a late trainer, none told yet, and a clock that is ahead are all sensible."""
    site.alive("running", age, seconds_left=left)
    assert f" · {shown} left · " in words(site.line())


@pytest.mark.parametrize(
    ("age", "state"), [(status.HEARTBEAT_TIMEOUT, "running"), (status.HEARTBEAT_TIMEOUT + 1, "stopped")]
)
def test_silence_is_death(site: Site, age: float, state: str):
    site.save(4)
    site.alive("running", age)
    line = site.line()
    assert line.state == state
    if state == "stopped":
        assert line.step == 4, "what is saved counts, not what was done"
        assert line.note == f"no sign of life since {status.date(NOW - age)}"
        assert "checkpoint at step 4 of 12; goes on when run again" in words(line)


@pytest.mark.parametrize("saved", [True, False])
def test_failed(site: Site, saved: bool):
    """A training that ended with an error says which, at once, with or without a checkpoint."""
    if saved:
        site.save(4)
    site.alive("failed", age=1, error="the loss is not finite at step 5")
    line = site.line()
    assert (line.state, line.step) == ("failed", 4 if saved else 0)
    assert words(line).endswith("the loss is not finite at step 5 · on node7")
    assert ("checkpoint at step 4 of 12" in words(line)) == saved
    assert words(site.line("X2-a")) == "for the model of X1-a: failed"
    assert as_text(site.lines().values()).endswith("1 failed, 1 waiting")


def test_stopped(site: Site):
    site.save(6)
    site.alive("stopped", age=7_000)
    line = site.line()
    assert (line.state, line.step, line.note) == ("stopped", 6, "")
    assert words(line) == "checkpoint at step 6 of 12; goes on when run again · on node7"


def test_died_before_its_first_checkpoint(site: Site):
    site.alive("running", age=1_000)
    line = site.line()
    assert (line.state, line.step) == ("stopped", 0)
    assert words(line).startswith("begins again when run again · no sign of life since ")


def test_a_checkpoint_alone_is_a_stopped_training(site: Site):
    """Trainings of other versions, or whose last sign was never written."""
    for done in (3, 5, 9):
        site.save(done)
    assert (site.line().state, site.line().step) == ("stopped", 9)


def test_the_checkpoint_is_the_one_that_training_goes_on_from(site: Site):
    site.save(3)
    site.save(9)
    (site.work / "newest").write_text("step-000000003.pt\n")  # as after a crash between the two writes
    assert [site.work / "step-000000003.pt"] == status._checkpoints(site.work)[:1] == [checkpoints.newest(site.work)]
    assert site.line().step == 3


def test_damaged_checkpoints_are_passed_over(site: Site):
    site.save(3)
    newest = site.save(9)
    newest.write_bytes(newest.read_bytes()[:-100])
    line = site.line()
    assert (line.state, line.step, line.note) == ("stopped", 3, "the newest checkpoint is damaged")
    for path in site.work.glob("step-*.pt"):
        path.write_bytes(b"")
    line = site.line()
    assert (line.state, line.note) == ("damaged", "every checkpoint is damaged")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"state": "running"}', "\x00\xff", '{"state": "asleep"}', "[" * 100_000]
)
def test_damaged_sign_of_life(site: Site, text: str):
    site.work.mkdir(parents=True)
    (site.work / slurm.HEARTBEAT).write_text(text, encoding="latin-1")
    assert (site.line().state, site.line().note) == ("damaged", "heartbeat.json is damaged")
    site.save(3)
    assert (site.line().state, site.line().step) == ("stopped", 3)


@pytest.mark.parametrize("facts", [{"step": -1}, {"max_steps": "many"}, {"seconds_left": float("nan")}, {"host": 7}])
def test_a_sign_of_life_that_makes_no_sense(site: Site, facts: dict[str, Any]):
    site.alive("running")
    path = site.work / slurm.HEARTBEAT
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    assert site.line().state == "damaged"


def test_done(site: Site):
    site.save(12)
    site.alive("running", step=12)
    site.finish(trained_on="a GPU")
    os.utime(site.model, (NOW - 60, NOW - 60))
    line = site.line()
    assert (line.state, line.time, line.device) == ("done", NOW - 60, "a GPU")
    assert words(line) == f"12 updates · {status.date(NOW - 60)} · on a GPU"
    assert (site.line("X2-a").state, site.line("X2-a").model) == ("done", "X1-a")
    assert words(site.line("X2-a")).startswith("samples the model of X1-a · 12 updates")


def test_imported(site: Site):
    site.finish(imported="released.pt")
    assert (site.line().state, site.line().source) == ("imported", "released.pt")
    assert words(site.line()).startswith("from released.pt · ")
    assert site.line("X2-a").state == "imported"


def test_model_of_other_settings(site: Site, tmp_path: Path):
    site.finish()
    changed = Site(tmp_path, budgets={"tiny": {"training": {"learning_rate": 2e-3}}})
    assert changed.line().state == "outdated"
    assert words(changed.line("X2-a")) == "for the model of X1-a: outdated"


def test_damaged_models(site: Site):
    site.finish()
    whole = site.model.read_bytes()
    for content in (b"", whole[:5], whole[:100], whole[:-1], bytes(len(whole)), whole + b"more"):
        site.model.write_bytes(content)
        assert (site.line().state, site.line().note) == ("damaged", "model.safetensors cannot be read")
    for metadata in ({}, {"experiment": "no JSON"}, {"experiment": "[]"}, {"experiment": '{"provenance": 3}'}):
        model_file.save_weights(site.model, {"w": torch.zeros(9)}, metadata)
        assert site.line().state == "damaged"


def test_folders_in_the_place_of_files(site: Site):
    for path in (site.model, site.folder() / "samples.json", site.folder() / "scores.parquet"):
        path.mkdir(parents=True)
    line = site.line()
    assert (line.state, line.samples, line.scores) == ("damaged", "damaged", "damaged")


def test_stages(site: Site):
    """A stage is outdated when what it was made from is newer, as Snakemake sees it."""
    manifest, scores = site.folder() / "samples.json", site.folder() / "scores.parquet"

    def stages() -> tuple[str, str]:
        return site.line().samples, site.line().scores

    site.finish()
    os.utime(site.model, (100, 100))
    shard = shards.Shard("test", "direct", range(2), site.folder() / "shards" / "test-0")
    shard.write(torch.zeros(2, 1, 4, 4).numpy())
    assert stages() == ("partly", "")
    write_manifest(
        manifest,
        Manifest(
            model="m", data="d", partner=None, seed=0, device="cpu", inference_batch=16, precision="fp32",
            compile=False, shard_size=4, signed_metrics=False, experiment=site.run().experiment, provenance={},
            sets={}, shards=[],
        ),
    )  # fmt: skip
    os.utime(manifest, (200, 200))
    assert stages() == ("done", "")
    pd.DataFrame({"value": [1.0]}).to_parquet(scores)
    os.utime(scores, (300, 300))
    assert stages() == ("done", "done")
    os.utime(manifest, (400, 400))
    assert stages() == ("done", "outdated")
    os.utime(site.model, (500, 500))
    assert stages() == ("outdated", "outdated")
    manifest.write_text('{"experiment": 1}')
    scores.write_bytes(scores.read_bytes()[:-2])
    assert stages() == ("damaged", "damaged")
    scores.write_bytes(b"")
    assert stages() == ("damaged", "damaged")


def test_json_and_text_tell_the_same(site: Site):
    site.alive("running")
    lines = list(site.lines().values())
    assert [Line(**entry) for entry in json.loads(as_json(lines))] == lines
    text = as_text(lines).splitlines()
    assert text[0].split() == ["run", "budget", "model", "samples", "scores"]
    assert [row.split()[:3] for row in text[1:3]] == [["X1-a", "tiny", "running"], ["X2-a", "tiny", "waiting"]]
    assert text[-1] == "1 running, 1 waiting"


def test_a_real_training(tmp_path: Path, digits: Path):
    """What the trainer itself leaves behind, stopped before its end and finished."""
    site = Site(tmp_path)
    arguments = (site.run().experiment, loop.TrainingPaths(digits, site.model, site.work), torch.device("cpu"))
    with pytest.raises(loop.Interrupted):
        loop.train(*arguments, loop.LoopOptions(stop_after=0.0))
    stopped = states(site.grid, site.results, time.time())[0]
    assert (stopped.state, stopped.step, stopped.note) == ("stopped", 1, "")
    assert stopped.host
    loop.train(*arguments)
    assert status.Sign.model_validate_json((site.work / slurm.HEARTBEAT).read_text()).step == 12
    done = states(site.grid, site.results, time.time())[0]
    assert (done.state, done.max_steps) == ("done", 12)
    assert done.device.startswith("CPU")
    assert done.time == pytest.approx(time.time(), abs=60)


def test_command(tmp_path: Path):
    """The verb answers from the checkout without data, torch or writing; a bad configuration is one line."""
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(f"budget: laptop\nexperiments: [E01, A3]\nresults: {tmp_path / 'results'}\n")
    code = "import sys; from coldbench.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"

    def typed(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "status", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    ended = typed(overlay, "--json")
    assert ended.returncode == 0, ended.stderr
    found = {entry["run"]: entry for entry in json.loads(ended.stdout)}
    assert (found["E01-fitted"]["state"], found["A3-fitted"]["model"]) == ("missing", "E01-fitted")
    assert found["E01-fitted"]["budget"] == "laptop"
    assert "1 missing, 1 waiting" in typed(overlay).stdout
    assert not (tmp_path / "results").exists()
    overlay.write_text("budget: labtop")
    assert typed(overlay).stderr.startswith("coldbench: error: unknown budget 'labtop': did you mean 'laptop'?")
    assert typed(tmp_path / "none.yaml").returncode == 1
