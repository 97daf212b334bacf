"""The verbs of a user's own images: a round trip as typed, and mistakes in one line with the nearest valid choice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import untrained
from PIL import Image

from coldbench import cli
from coldbench.core import plugins

BLUR = ("T=4", "kernel=3", "std=1.0", "--size", "16")
PLUGIN = """import coldbench


@coldbench.degradation("fade")
class Fade(coldbench.Degradation):
    def degrade(self, x0, t, drawn):
        return x0 * (1 - t / self.T).to(x0.dtype)[:, None, None, None]
"""


@pytest.fixture(autouse=True)
def _work(tmp_path, monkeypatch, experiment):
    """A folder with two clean images, a model of the small experiment, and a plug-in."""
    monkeypatch.chdir(tmp_path)
    untrained(tmp_path / "model.safetensors", experiment)
    for number in range(2):
        path = tmp_path / "clean" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    (tmp_path / "fade.py").write_text(PLUGIN)
    yield
    plugins.use([])


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The message that ends the command; nothing if it succeeds."""
    monkeypatch.setattr(sys, "argv", ["coldbench", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return str(end.value.code or "")


def test_images_are_degraded_and_restored_by_a_model(tmp_path, monkeypatch, capsys):
    assert not call(monkeypatch, "degrade", "model.safetensors", "clean", "--out", "degraded", "--seed", "7")
    assert "--drawn degraded/drawn.json" in capsys.readouterr().err
    words = ("model.safetensors", "degraded", "--out", "restored", "--drawn", "degraded/drawn.json")
    assert not call(monkeypatch, "restore", *words)
    assert [image["file"] for image in json.loads(Path("restored/restored.json").read_text())["images"]] == [
        "0.png", "1.png"
    ]  # fmt: skip


def test_images_are_degraded_by_name_and_by_a_plug_in(tmp_path, monkeypatch):
    assert not call(monkeypatch, "degrade", "blur", "clean", *BLUR, "--out", "blurred", "--severity", "2")
    content = json.loads(Path("blurred/drawn.json").read_text())
    assert (content["degradation"]["std"], content["severity"], content["channels"]) == (1.0, 2, 3)
    words = ("fade", "clean/1.png", "T=4", "--size", "8", "--resize", "--channels", "1", "--plugin", "fade.py")
    assert not call(monkeypatch, "degrade", *words, "--out", "faded")
    assert np.asarray(Image.open("faded/1.png")).shape == (8, 8)
    assert len(json.loads(Path("faded/drawn.json").read_text())["degradation"]["source"]) == 16


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        (("blurr", "clean", *BLUR), ["'blurr'", "did you mean 'blur'"]),
        (("fade", "clean", "T=4", "--size", "16"), ["'fade'", "valid: animorphosis, blur"]),
        (("none.safetensors", "clean"), ["none.safetensors", "does not exist"]),
        (("fade.py", "clean"), ["fade.py", "no model"]),
        (("blur", "clean", "T=4"), ["blur", "--size"]),
        (("blur", "clean", "T4", "--size", "16"), ["'T4'", "KEY=VALUE"]),
        (("blur", "clean", *BLUR, "kernal=3"), ["'kernal'", "did you mean 'kernel'"]),
        (("blur", "clean", *BLUR, "T=x"), ["blur", "T must be", "'x'"]),
        (("blur", "clean", *BLUR[:-1], "17"), ["16x16", "17x17", "--resize"]),
        (("blur", "none", *BLUR), ["none", "does not exist"]),
        (("blur", "clean", *BLUR, "--severity", "5"), ["severity 5", "1…4"]),
        (("model.safetensors", "clean", "T=3"), ["T=3", "model.safetensors"]),
        (("model.safetensors", "clean", "--size", "16"), ["--size", "model.safetensors"]),
        (("model.safetensors", "clean", "--severity", "5"), ["severity 5", "1…4"]),
    ],
    ids=str,
)
def test_mistake_is_refused_in_one_line(words, reasons, monkeypatch):
    message = call(monkeypatch, "degrade", *words, "--out", "degraded")
    assert not [reason for reason in reasons if reason not in message]
    assert "\n" not in message
    assert not Path("degraded").exists()
