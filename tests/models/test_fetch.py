"""Fetching a published model: the right file or none, from a folder and over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.models import fetch
from coldbench.models.header import read_header
from coldbench.models.model_file import load_weights

FILE = "tiny-test-s3.safetensors"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder. The file `limits.json` in it says how many bytes of a file are sent, and how slowly."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        limits = Path(self.directory, "limits.json")
        limit = json.loads(limits.read_text()) if limits.exists() and "safetensors" in self.path else {}
        content = source.read()[: limit.get("bytes")]
        for start in range(0, len(content), 1000):
            outputfile.write(content[start : start + 1000])
            outputfile.flush()
            time.sleep(limit.get("pause", 0))


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A release with one model."""
    release = tmp_path / "release"
    release.mkdir()
    (release / FILE).write_bytes(model.read_bytes())
    entry = {
        "name": "tiny-test-s3", "file": FILE, "bytes": model.stat().st_size, "sha256": sha256(model),
        "fingerprint": read_header(model).experiment.fingerprint, "title": "Tiny", "budget": "smoke",
    }  # fmt: skip
    (release / "manifest.json").write_text(json.dumps({"version": 1, "coldbench": "0.1.0", "models": [entry]}))
    return release


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The address of the release."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


@pytest.fixture(params=["folder", "server"])
def source(request: pytest.FixtureRequest, folder: Path, server: str) -> str:
    return str(folder) if request.param == "folder" else server


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir()) if out.exists() else []


def change(folder: Path, **entry: Any) -> None:
    """Change the entry of the model in the manifest."""
    content = json.loads((folder / "manifest.json").read_text())
    content["models"][0] |= entry
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_model_arrives_as_it_was_published_and_is_kept(source, folder, tmp_path, caplog):
    caplog.set_level("INFO", logger="coldbench")
    path = fetch.fetch_model("tiny-test-s3", f"{source}/", tmp_path / "out")
    assert path == tmp_path / "out" / FILE
    assert path.read_bytes() == (folder / FILE).read_bytes()
    assert files(tmp_path / "out") == [FILE]
    load_weights(path)
    date = path.stat().st_mtime_ns
    (folder / FILE).unlink()  # a present file needs no other
    assert fetch.fetch_model("tiny-test-s3", source, tmp_path / "out").stat().st_mtime_ns == date
    assert "already" in caplog.text


def test_wrong_content_is_refused_with_both_hashes(source, folder, tmp_path):
    expected = sha256(folder / FILE)
    content = bytearray((folder / FILE).read_bytes())
    content[-5] ^= 1
    (folder / FILE).write_bytes(content)
    with pytest.raises(ColdbenchError) as refusal:
        fetch.fetch_model("tiny-test-s3", source, tmp_path / "out")
    for word in (FILE, sha256(folder / FILE), expected):
        assert word in str(refusal.value)
    assert not files(tmp_path / "out")


def test_a_download_that_ends_early_is_refused_and_the_next_one_succeeds(server, folder, tmp_path):
    (folder / "limits.json").write_text('{"bytes": 20000}')
    with pytest.raises(ColdbenchError, match=rf"{FILE} .*20,000 of"):
        fetch.fetch_model("tiny-test-s3", server, tmp_path / "out")
    assert not files(tmp_path / "out")
    (folder / "limits.json").unlink()
    assert fetch.fetch_model("tiny-test-s3", server, tmp_path / "out").exists()


def test_a_killed_download_restarts_cleanly(server, folder, tmp_path):
    """SIGKILL while the file arrives. What it left is gone after the next download."""
    (folder / "limits.json").write_text('{"pause": 0.05}')
    out = tmp_path / "out"
    words = ["-c", "import coldbench.cli as cli; cli.main()"]
    words += ["fetch-model", "tiny-test-s3", "--from", server, "--out", str(out)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 120
        while not any((out / name).stat().st_size for name in files(out)) and time.monotonic() < limit:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert files(out)
    assert FILE not in files(out)
    (folder / "limits.json").unlink()
    fetch.fetch_model("tiny-test-s3", server, out)
    assert files(out) == [FILE]


def test_another_file_in_its_place_stays(folder, tmp_path):
    for place in (Path.mkdir, lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere")):
        path = tmp_path / f"out-{len(list(tmp_path.iterdir()))}" / FILE
        path.parent.mkdir()
        place(path)
        with pytest.raises(ColdbenchError, match=f"{FILE} .*move it"):
            fetch.fetch_model("tiny-test-s3", str(folder), path.parent)
        assert files(path.parent) == [FILE]


def write(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "name", "words"),
    [
        (lambda folder: None, "tiny-test-s4", "'tiny-test-s4': did you mean 'tiny-test-s3'"),
        (lambda folder: (folder / "manifest.json").unlink(), "x", r"manifest\.json"),
        (lambda folder: (folder / FILE).unlink(), "tiny-test-s3", FILE),
        (write("{"), "x", r"manifest\.json"),
        (write("[1]"), "x", r"manifest\.json is no manifest"),
        (write('{"models": [], "version": 2, "coldbench": ""}'), "x", "version"),
        (write('{"models": [], "version": 1, "coldbench": ""}'), "x", "'x'"),
        (lambda folder: change(folder, file="../x.safetensors"), "x", r"models\.0\.file"),
        (lambda folder: change(folder, file="manifest.json"), "x", r"models\.0\.file"),
        (lambda folder: change(folder, sha256="0"), "x", r"models\.0\.sha256"),
        (lambda folder: change(folder, bites=1), "x", "did you mean 'models.0.bytes'"),
        (lambda folder: (folder / "manifest.json").write_text(twice(folder)), "x", "2 models .* tiny-test-s3"),
    ],
)
def test_a_release_that_cannot_be_read_is_refused(source, folder, tmp_path, spoil, name, words):
    spoil(folder)
    with pytest.raises(ColdbenchError, match=words) as refusal:
        fetch.fetch_model(name, source, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not files(tmp_path / "out")


def twice(folder: Path) -> str:
    content = json.loads((folder / "manifest.json").read_text())
    return json.dumps({**content, "models": content["models"] * 2})


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (None, "--from"),
        ("none", "none is no folder"),
        ("ftp://127.0.0.1/x", "http://"),
        ("http://127.0.0.1:1", r"127\.0\.0\.1:1/manifest\.json"),
        ("http://", "http:"),
        ("http://[x", r"manifest\.json"),
    ],
)
def test_wrong_sources_are_refused(release, words, tmp_path):
    with pytest.raises(ColdbenchError, match=words):
        fetch.fetch_model("x", release, tmp_path / "out")
    assert not files(tmp_path / "out")


def test_the_suites_own_release_is_the_default(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "RELEASE", str(folder))
    assert fetch.fetch_model("tiny-test-s3", None, tmp_path / "out").exists()
