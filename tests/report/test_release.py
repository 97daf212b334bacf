"""A release of models: what fetch-model gets is what the runs made, and no other file is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import ROOT, score, untrained

from coldbench.core import __version__
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.evaluation.scores import write_scores
from coldbench.models import fetch
from coldbench.models.header import read_header
from coldbench.report.release import release


@pytest.fixture
def runs(experiment, tmp_path: Path) -> list[Path]:
    """Two finished runs, the second with scores."""
    folders = [tmp_path / "results" / "smoke" / name for name in ("tiny-test", "other-test-s3")]
    for folder, seed in zip(folders, (0, 3), strict=True):
        folder.mkdir(parents=True)
        name = folder.name.partition("-")[0]
        untrained(folder / "model.safetensors", experiment.model_copy(update={"name": name, "seed": seed}))
    write_scores([score(title="Inpainting of digits")], folders[1] / "scores.parquet", {})
    return folders


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "build" / "release"


def test_manifest_describes_the_models_and_fetch_model_gets_them(runs, out, tmp_path):
    text = release(runs, out)
    content = json.loads((out / "manifest.json").read_text())
    assert [model["name"] for model in content["models"]] == ["other-test-s3", "tiny-test"]
    for model, run in zip(content["models"], reversed(runs), strict=True):
        file = run / "model.safetensors"
        title = "Inpainting of digits" if run == runs[1] else "inpainting on digits, 16 px"
        assert model == {
            "name": run.name, "file": f"{run.name}.safetensors", "bytes": file.stat().st_size, "sha256": sha256(file),
            "fingerprint": read_header(file).experiment.fingerprint, "title": title, "budget": "smoke",
        }  # fmt: skip
        fetched = fetch.fetch_model(run.name, str(out), tmp_path / "models")
        assert fetched.read_bytes() == file.read_bytes()
    assert (out / "upload.txt").read_text() == text
    assert f"gh release create models-{__version__}" in text
    assert all(name in text for name in ("manifest.json", "tiny-test.safetensors", "other-test-s3.safetensors"))
    assert str(tmp_path) not in text + (out / "manifest.json").read_text()


def test_a_release_replaces_its_predecessor(runs, out, experiment):
    release(runs, out)
    date = (out / "other-test-s3.safetensors").stat().st_mtime_ns
    release(runs, out)
    assert (out / "other-test-s3.safetensors").stat().st_mtime_ns == date
    untrained(runs[0] / "model.safetensors", experiment.model_copy(update={"seed": 0}), seed=1)
    release(runs[:1], out)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "tiny-test.safetensors", "upload.txt"]
    assert sha256(out / "tiny-test.safetensors") == sha256(runs[0] / "model.safetensors")


def test_a_killed_release_continues(runs, out, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("coldbench.report.release.write_json", kill)
        with pytest.raises(Killed):
            release(runs, out)
    assert not (out / "manifest.json").exists()
    (out / ".manifest.json.0.json").write_text("what a killed writer leaves")
    release(runs, out)
    assert (out / "manifest.json").exists()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


REFUSALS: list[tuple[Callable[[list[Path]], object], str]] = [
    (lambda runs: (runs[0] / "model.safetensors").unlink(), r"tiny-test is not finished.*tiny-test/model\.safetensors"),
    (lambda runs: shutil.rmtree(runs[0]), "tiny-test is not finished"),
    (lambda runs: damage(runs[0] / "model.safetensors"), r"tiny-test/model\.safetensors is damaged"),
    (lambda runs: (runs[0] / "model.safetensors").write_text("x"), r"tiny-test/model\.safetensors is damaged"),
    (lambda runs: (runs[1] / "scores.parquet").write_text("x"), r"other-test-s3/scores\.parquet"),
    (lambda runs: runs.append(Path(shutil.copytree(runs[0], runs[0].parents[1] / "laptop"))), "both named tiny-test"),
    (lambda runs: runs.clear(), "BUDGET/RUN"),
]


@pytest.mark.parametrize(("spoil", "words"), REFUSALS)
def test_runs_that_cannot_be_released_are_refused(spoil, words, runs, out):
    spoil(runs)
    with pytest.raises(ColdbenchError, match=words):
        release(runs, out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["mine.txt", "upload.txt", "manifest.json", "tiny-test.safetensors", "folder/x"])
def test_other_files_are_refused_and_stay(name, runs, out):
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text('"mine"')
    with pytest.raises(ColdbenchError, match=name.partition("/")[0]):
        release(runs, out)
    assert [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()] == [name]
    assert (out / name).read_text() == '"mine"'


def test_make_release_names_the_finished_runs_of_a_budget(tmp_path):
    """Without RUNS: those with a model, of the budget of this machine."""
    for name in ("smoke/a", "laptop/b", "laptop/c"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "model.safetensors").touch()
    (tmp_path / "results/laptop/unfinished").mkdir()
    command = ["make", "-n", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path), "READY=", "release"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "coldbench release results/laptop/b results/laptop/c --out build/release" in shown
    shown = subprocess.run([*command, "BUDGET=smoke"], capture_output=True, text=True, check=True).stdout
    assert "coldbench release results/smoke/a --out build/release" in shown


def test_verbs_end_with_the_commands_and_the_file(runs, out, tmp_path):
    call = (sys.executable, "-c", "import coldbench.cli as cli; cli.main()")
    options = {"capture_output": True, "text": True, "check": True, "cwd": tmp_path}
    shown = subprocess.run([*call, "release", *map(str, runs)], **options).stdout
    assert "gh release create" in shown
    words = ("fetch-model", "tiny-test", "--from", "build/release")
    assert subprocess.run([*call, *words], **options).stdout == "models/tiny-test.safetensors\n"
