"""Atomic files, what killed writers leave, names that lead elsewhere, and logs in any locale."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coldbench.core.checksums import find_hashed, write_hashed
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, below, write_text

WRITER = """
import sys, time
from pathlib import Path
from coldbench.core.files import atomic
with atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    Path(f"{temporary}.beside").write_text("what a library writes beside it")
    print("writing", flush=True)
    time.sleep(99)
"""


def writer(path: Path) -> subprocess.Popen[bytes]:
    """Another process, in the middle of writing `path`."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def test_what_a_killed_writer_left_is_removed_by_the_next_writer_of_the_name(tmp_path: Path) -> None:
    """The file of a living writer stays, and so do files of other names."""
    path, other = tmp_path / "file.txt", tmp_path / ".file.txt.mine"
    other.write_text("a user's own")
    living, dead = writer(path), writer(path)
    try:
        assert len(list(tmp_path.iterdir())) == 5
        dead.kill()
        dead.wait()
        write_text(path, "whole")
        temporary = tmp_path / ".file.txt.0.txt"
        assert set(tmp_path.iterdir()) == {path, other, temporary, Path(f"{temporary}.beside")}
    finally:
        living.send_signal(signal.SIGKILL)
        living.wait()
    write_text(path, "whole again")
    assert set(tmp_path.iterdir()) == {path, other}
    assert path.read_text() == "whole again"


def test_what_a_killed_writer_left_of_a_hashed_file_is_removed_by_the_next_search(tmp_path: Path) -> None:
    """Its name holds a hash of the content, and other content may be written next."""
    written = write_hashed(tmp_path, "tacos", ".npy", b"content")
    dead = writer(tmp_path / f"tacos-{'0' * 16}.npy")
    assert find_hashed(tmp_path, "tacos", ".npy") == written
    assert len(list(tmp_path.iterdir())) == 3
    dead.kill()
    dead.wait()
    assert find_hashed(tmp_path, "tacos", ".npy") == written
    assert list(tmp_path.iterdir()) == [written]


def test_writing_needs_no_chmod_and_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network and user-space file systems refuse both; the mode is that of any new file."""

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, refuse, raising=False)
    monkeypatch.setattr("fcntl.flock", refuse)
    before = os.umask(0o027)
    try:
        (tmp_path / ".file.txt.0.txt").write_text("left by a killed process")
        write_text(tmp_path / "file.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(ColdbenchError, match="cannot write"), atomic(path):
        raise OSError(28, "No space left on device")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", ".", "link/a", "loop", "none", "a/b", "a\0", "x" * 300])
def test_names_from_files_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for file in (tmp_path / "a", folder / "a"):
        file.write_text("a")
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    assert below(folder, Path("a")) == folder / "a"
    with pytest.raises(ColdbenchError, match="is no file in"):
        below(folder, Path(name))


def test_logs_lose_no_line_in_any_locale(tmp_path: Path) -> None:
    """Also not one that names a file whose name is no text."""
    code = "from pathlib import Path; from coldbench.core import logs; logs.log_to(Path('train.log'), 'x')\n"
    code += "logs.log.info('0:05 left \\xb7 loss \\u2212 %s', '\\udcff')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, check=True)
    assert b"Traceback" not in done.stderr
    assert "0:05 left · loss − \\udcff" in (tmp_path / "train.log").read_text("utf-8")


def test_log_on_a_full_disk_loses_its_lines_and_says_nothing_else() -> None:
    code = """
from pathlib import Path
from coldbench.core import logs
logs.log_to(Path("/dev/full"), "[name]")
logs.log.info("a line")
logs.log_failure("the end")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "[name] a line\n")
