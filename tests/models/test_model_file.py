"""A loaded model gives the restorer, the degradation and the images that a sampler takes."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import untrained
from PIL import Image

import coldbench
from coldbench import data, degradations, models
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment


@pytest.fixture
def photos_folder(tmp_path: Path) -> Path:
    """Two grey images of the model's size, and a larger one in a folder below."""
    random = np.random.default_rng(0)
    for name, side in (("10.png", 16), ("9.png", 16), ("a/1.png", 24)):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side), np.uint8)).save(path)
    return tmp_path / "photos"


def test_lines_of_the_documentation_restore_images(model, photos_folder, tmp_path, monkeypatch, capsys) -> None:
    """As they stand in the docstring of the package: at most ten, and they print one SSIM for each image."""
    assert coldbench.__doc__ is not None
    code = textwrap.dedent(coldbench.__doc__[coldbench.__doc__.index("    import coldbench") :])
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "<documentation>", "exec"), names)
    assert capsys.readouterr().out.startswith("tensor(")
    values = coldbench.ssim((names["x0"] + 1) / 2, (names["x"] + 1) / 2)
    assert values.shape == (3,)


def test_parts_of_a_model_are_those_of_its_experiment(model, experiment: Experiment, photos_folder: Path) -> None:
    loaded = coldbench.load_model(str(model))
    assert loaded.degradation() == degradations.build(experiment.degradation, 16)
    x = loaded.read_images(photos_folder, resize=True)
    assert (x.shape, x.dtype) == ((3, 1, 16, 16), torch.float32)
    expected = np.asarray(Image.open(photos_folder / "9.png"))
    np.testing.assert_array_equal(((x[0, 0] + 1) * 127.5).round().numpy(), expected)
    torch.testing.assert_close(loaded.restorer()(x, 2), models.restorer(loaded.network)(x, 2), rtol=0, atol=0)
    assert torch.equal(loaded.read_images(photos_folder / "9.png"), x[:1])


def test_partner_is_asked_for(experiment: Experiment, digits: Path, tmp_path: Path) -> None:
    mixed = experiment.model_copy(update={"degradation": {"name": "animorphosis", "T": 3, "partner": "digits"}})
    loaded = coldbench.load_model(untrained(tmp_path / "mixed.safetensors", mixed))
    with pytest.raises(ColdbenchError, match="images of digits"):
        loaded.degradation()
    drawn = loaded.degradation(digits).draw(torch.arange(2), 0)
    assert drawn["z"].shape == (2, 3, 16, 16)
    assert len(data.load(digits, "train"))


@pytest.mark.parametrize(
    ("source", "words"),
    [("none", "none cannot be read"), ("empty", "empty holds no images"), ("photos", r"24x24.*16x16")],
)
def test_images_that_do_not_fit_are_refused(model, photos_folder, tmp_path, source, words) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ColdbenchError, match=words):
        coldbench.load_model(model).read_images(tmp_path / source)
