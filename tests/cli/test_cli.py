"""What the command line is given and cannot read ends in one line that names it, and in status 1."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coldbench import cli
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json

UTF_16 = "größer".encode("utf-16")
EVALUATE = ("--metadata", "{}", "--data", "d", "--out", "o.json", "--feature-cache", "s")
IMPORT = ("import", "model.pt", "--out", "o.safetensors", "--experiment")
TRAIN = ("train", "--data", "d", "--out", "o.safetensors", "--work", "w", "--experiment")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*IMPORT, "binary"), "experiment binary is no text in UTF-8 (byte 0)"),
        ((*TRAIN, "binary"), "experiment binary is no text in UTF-8 (byte 0)"),
        ((*IMPORT, "folder"), "cannot read experiment folder: Is a directory"),
        ((*IMPORT, "none"), "cannot read experiment none: No such file or directory"),
        (("calibrate", "binary"), "interpretations binary is no text in UTF-8 (byte 0)"),
        (("calibrate", "none"), "cannot read interpretations none: No such file or directory"),
        (("fetch", "digits", "data", "--log", "file/x.log"), "cannot write log file/x.log: File exists"),
        (("fetch", "digits", "data", "--log", "file/x/y.log"), "cannot write log file/x/y.log: Not a directory"),
        (("fetch", "digits", "data", "--log", "folder"), "cannot write log folder: Is a directory"),
        (("evaluate", "folder", *EVALUATE), "cannot read folder: Is a directory"),
        (("evaluate", "file/m.json", *EVALUATE), "cannot read file/m.json: Not a directory"),
        (("evaluate", "none", *EVALUATE), "none does not exist"),
        (("evaluate", "binary", *EVALUATE), "binary is damaged: 'utf-8' codec can't decode byte"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, monkeypatch, capsys, words, told) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "binary").write_bytes(UTF_16)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["coldbench", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, str), "Python writes it to stderr and ends with status 1"
    assert end.value.code.startswith(f"coldbench: error: {told}")
    assert "\n" not in end.value.code
    assert capsys.readouterr().err == ""


def test_a_log_in_a_work_folder_that_cannot_be_is_no_reason_to_stop(experiment, tmp_path, monkeypatch) -> None:
    """The training says itself that its work folder cannot be written, or that its data are not there."""
    (tmp_path / "file").write_text("")
    words = ("--data", "d", "--out", "o.safetensors", "--work", "file", "--experiment", experiment.model_dump_json())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["coldbench", "train", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert "log" not in str(end.value.code)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[" * 100_000], ids=["cut", "binary", "empty", "deep"])
def test_damaged_json_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ColdbenchError, match=r"x\.json is damaged: .*; delete it and run again"):
        read_json(tmp_path / "x.json")
