"""Prepared data sets: the registry's promises, the arrays on disk, and refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coldbench import data
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256, write_json
from coldbench.data import embedded

EMBEDDED = [name for name, entry in data.DATASETS.items() if entry.embedded]


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_sets_are_deterministic_disjoint_and_as_registered(name: str, tmp_path: Path) -> None:
    entry = data.dataset(name)
    data.check_source(name, None)
    data.fetch(name, None)
    for size, out in ((32, tmp_path / "a"), (32, tmp_path / "b"), (16, tmp_path / "c")):
        data.prepare(name, None, size, out)
        description = data.info(out)
        assert (description["name"], description["size"], description["embedded"]) == (name, size, True)
        assert description["sha256"] == {split: sha256(out / f"{split}.npy") for split in data.SPLITS}
        for split, count in entry.counts(Path()).items():
            images = data.load(out, split)
            assert isinstance(images, np.memmap)
            assert images.shape == (count, entry.channels, size, size)
            assert images.dtype == np.uint8
            assert images.min() < 10 and images.max() > 245  # noqa: PT018 - one claim: the range 0…255 is used
    assert data.info(tmp_path / "a") == data.info(tmp_path / "b")
    assert data.info(tmp_path / "a")["hash"] != data.info(tmp_path / "c")["hash"]
    train, test = ({image.tobytes() for image in data.load(tmp_path / "a", split)} for split in data.SPLITS)
    assert len(train) == entry.train, "an image occurs twice"
    assert not train & test, "a test image is a training image"


def test_photographs_are_split_and_the_first_crops_show_all_of_them() -> None:
    train, test = embedded.PHOTOS["train"], embedded.PHOTOS["test"]
    assert not set(train) & set(test)
    assert data.dataset("photos").train == embedded.CROPS * len(train)
    photographs = [crop * embedded.CROP_STEP % data.dataset("photos").test // embedded.CROPS for crop in range(64)]
    assert min(photographs.count(photo) for photo in range(len(test))) > 20


def test_largest_crops_are_not_enlarged() -> None:
    crop = next(embedded.photos(Path(), data.LARGEST, "test"))
    assert crop.shape == (3, data.LARGEST, data.LARGEST)
    assert np.abs(np.diff(crop.astype(float), n=2, axis=-1)).mean() > 1  # bilinear enlargement is nearly linear


def test_builder_that_yields_too_few_images_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATASETS, "digits", replace(data.DATASETS["digits"], train=1438))
    with pytest.raises(ColdbenchError, match=r"train\.npy"):
        data.prepare("digits", None, 16, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_failed_preparation_invalidates_the_older_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.prepare("digits", None, 16, tmp_path)
    monkeypatch.setitem(data.DATASETS, "digits", replace(data.DATASETS["digits"], test=361))
    with pytest.raises(ColdbenchError):
        data.prepare("digits", None, 16, tmp_path)
    with pytest.raises(ColdbenchError, match=r"info\.json does not exist"):
        data.load(tmp_path, "train")


@pytest.mark.parametrize("split", data.SPLITS)
def test_array_that_info_does_not_describe_is_refused(digits: Path, tmp_path: Path, split: str) -> None:
    """Another number, another size, more channels, no channels, another type: each alone."""
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    images = np.array(data.load(digits, split))
    others = (images[:-1], images[..., :-1], images.repeat(3, axis=1), images[:, 0], images.astype(np.int16))
    for other in others:
        np.save(tmp_path / f"{split}.npy", other)
        with pytest.raises(ColdbenchError, match=rf"{split}\.npy"):
            data.load(tmp_path, split)
    np.save(tmp_path / f"{split}.npy", images)
    np.testing.assert_array_equal(data.load(tmp_path, split), images)


def test_load_names_the_damaged_file(tmp_path: Path) -> None:
    data.prepare("digits", None, 16, tmp_path)
    path = tmp_path / "test.npy"
    content = path.read_bytes()
    np.save(tmp_path / "floats.npy", np.zeros((360, 1, 16, 16), np.float32))
    floats = (tmp_path / "floats.npy").read_bytes()
    for damaged in (content[:-1], content[:40], b"", b"x" * len(content), floats):
        path.write_bytes(damaged)
        with pytest.raises(ColdbenchError, match=r"test\.npy"):
            data.load(tmp_path, "test")
    path.unlink()
    with pytest.raises(ColdbenchError, match=r"test\.npy does not exist"):
        data.load(tmp_path, "test")
    description = data.info(tmp_path)
    counts = [None, 3, [360], {}, {"train": 1437}, {"train": None, "test": 360}, {"train": "1437", "test": 360}]
    for value in ({"name": "digits"}, [], *({**description, "counts": each} for each in counts)):
        write_json(tmp_path / "info.json", value)
        with pytest.raises(ColdbenchError, match=r"info\.json is damaged"):
            data.load(tmp_path, "train")


REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "name": (lambda folder: data.dataset("minst"), "'minst'", "'mnist'"),
    "name to look for": (lambda folder: data.available("minst", None), "'minst'", "'mnist'"),
    "name to fetch": (lambda folder: data.fetch("minst", None), "'minst'", "'mnist'"),
    "folder without a name": (lambda folder: data.dataset("folder-"), "'folder-'", "folder-NAME"),
    "split": (lambda folder: data.load(folder, "tests"), "'tests'", "'test'"),
    "negative size": (lambda folder: data.prepare("digits", None, -1, folder), "-1", "16 to 256"),
    "small size": (lambda folder: data.prepare("digits", None, 15, folder), "15", "16 to 256"),
    "large size": (lambda folder: data.prepare("digits", None, 257, folder), "257", "16 to 256"),
    "no data folder": (lambda folder: data.prepare("mnist", None, 32, folder), "'mnist'", "MNIST/raw"),
    "set without download": (lambda folder: data.fetch("celeba", folder), "CelebA-HQ", "cannot be downloaded"),
}
"""Call, offending value, nearest valid choice."""


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_request_is_refused_with_the_nearest_choice(case: str, tmp_path: Path) -> None:
    call, culprit, choice = REFUSED[case]
    with pytest.raises(ColdbenchError) as caught:
        call(tmp_path)
    message = str(caught.value)
    assert culprit in message
    assert choice in message
    assert "\n" not in message
