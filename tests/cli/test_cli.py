"""Arguments that cannot be read end the command line with one line that names them, and status 1."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from cases import ROOT, run_file
from PIL import Image

from coldbench import cli
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json

UTF_16 = "größer".encode("utf-16")
EVALUATE = ("--data", "d", "--out", "o.json", "--feature-cache", "s")
IMPORT = ("import", "model.pt", "--out", "o.safetensors", "--run")
TRAIN = ("train", "--data", "d", "--out", "o.safetensors", "--checkpoint-dir", "c")
CALIBRATE = ("calibrate", "plan.yaml", "--paper", str(ROOT / "workflow/paper/tables.csv"), "--data")
PLAN = """rows: {row: {
  table: 1, row: MNIST, dataset: mnist, degradation: {name: snow, T: 2, level: 3}, interpretations: {a: {rationale: ""}}
}}"""
REFUSALS = (
    ((*IMPORT, "binary"), "binary", "UTF-8"),
    ((*TRAIN, "binary"), "binary", "UTF-8"),
    ((*IMPORT, "folder"), "folder", "Is a directory"),
    ((*IMPORT, "none"), "none", "No such file"),
    ((*TRAIN, "file"), "file", "JSON"),
    (("calibrate", "binary"), "binary", "UTF-8"),
    (("calibrate", "none"), "none", "No such file"),
    ((*CALIBRATE, "none"), "none", "does not exist"),
    ((*CALIBRATE, "folder"), "folder", "none of mnist"),
    ((*CALIBRATE, "folder", "--out", "file/c.parquet"), "file/c.parquet", "cannot write"),
    ((*CALIBRATE, "folder", "--out", "folder"), "folder", "is a folder"),
    (("prepare", "digits", "--out", "file/x"), "file/x", "cannot write"),
    (("prepare", "folder-x", "--out", "x", "--folder", "none"), "none/x", "does not exist"),
    (("fetch", "mnist", "file"), "file", "no folder"),
    (("fetch", "mnist", "/proc/x"), "/proc/x", "cannot write"),
    (("fetch", "digits", "data", "--log", "file/x.log"), "file/x.log", "is no folder"),
    (("fetch", "digits", "data", "--log", "file/x/y.log"), "file/x/y.log", "is no folder"),
    (("fetch", "digits", "data", "--log", "folder"), "folder", "is a folder"),
    (("evaluate", "run/run.json", "folder", *EVALUATE), "folder", "Is a directory"),
    (("evaluate", "run/run.json", "file/m.json", *EVALUATE), "file/m.json", "Not a directory"),
    (("evaluate", "run/run.json", "none", *EVALUATE), "none", "does not exist"),
    (("evaluate", "run/run.json", "binary", *EVALUATE), "binary", "damaged"),
    (("sample", "run/run.json", "m", "--data", "d", "--shard-dir", "s", "--part", "3/2"), "3/2", "k/n"),
)


def end_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The message that ends the command; Python writes it to stderr and ends with status 1."""
    monkeypatch.setattr(sys, "argv", ["coldbench", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, str)
    return end.value.code


@pytest.mark.parametrize(("words", "culprit", "reason"), REFUSALS)
def test_unreadable_argument_is_refused_in_one_line(
    experiment, tmp_path, monkeypatch, capsys, words, culprit, reason
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "binary").write_bytes(UTF_16)
    (tmp_path / "plan.yaml").write_text(PLAN)
    run_file(tmp_path / "run", experiment)
    monkeypatch.chdir(tmp_path)
    message = end_of(monkeypatch, *words)
    assert message.startswith("coldbench: error: ")
    assert culprit in message
    assert reason in message
    assert "\n" not in message
    assert capsys.readouterr().err == ""


def test_log_that_cannot_be_written_into_the_checkpoints_is_ignored(experiment, tmp_path, monkeypatch) -> None:
    """The training itself says that its folder cannot be written, or that its data are missing."""
    (tmp_path / "file").write_text("")
    run_file(tmp_path, experiment)
    monkeypatch.chdir(tmp_path)
    words = ("train", "run.json", "--data", "d", "--out", "o.safetensors", "--checkpoint-dir", "file")
    assert "log" not in end_of(monkeypatch, *words)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[" * 100_000], ids=["cut", "binary", "empty", "deep"])
def test_damaged_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ColdbenchError, match=r"x\.json is damaged: "):
        read_json(tmp_path / "x.json")


def test_data_set_of_any_name_is_prepared_and_its_progress_is_readable(tmp_path, monkeypatch, capsys) -> None:
    name = "folder-100%s [x] $HOME"
    for number in range(12):
        path = tmp_path / name.removeprefix("folder-") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
    (path.parent / "notes.txt").touch()
    words = ("prepare", name, "--folder", str(tmp_path), "--size", "16", "--out", str(tmp_path / "out"))
    for expected in ("passed over", "kept"):
        monkeypatch.setattr(sys, "argv", ["coldbench", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert all(line.startswith(f"[prepare {name}] ") for line in lines)
        assert expected in lines[0]


OUTPUTS = {"out", "log", "checkpoint_dir", "shard_dir", "feature_cache"}


def outputs() -> list[tuple[str, str]]:
    """Every verb with every option of it that names something to write."""
    verbs = typer.main.get_command(cli.app).commands
    return [(verb, option.name) for verb in verbs for option in verbs[verb].params if option.name in OUTPUTS]


@pytest.mark.parametrize(("verb", "option"), outputs())
def test_output_that_cannot_be_written_is_refused_before_any_work(
    verb: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where its folder should be, or a link leads nowhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to("none")
    command = typer.main.get_command(cli.app).commands[verb]
    words = [verb]
    for each in command.params:
        if each.param_type_name == "option" and each.required and each.name != option:
            words += [each.opts[0], "x"]
        elif each.param_type_name == "argument" and each.required:
            words.append("x")
    flag = next(each.opts[0] for each in command.params if each.name == option)
    for place in ("file/x", "nowhere/x"):
        message = end_of(monkeypatch, *words, flag, place)
        assert "cannot write" in message
        assert place in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nowhere"]
