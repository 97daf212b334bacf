"""Folders of photographs: splits and order, incomplete and damaged folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coldbench import data
from coldbench.core.errors import ColdbenchError, MissingFile
from coldbench.data import folders

COUNTS = {
    "celeba": {"train": 10, "test": 3},
    "celeba_aligned": {"train": 2, "test": 1},
    "afhq": {"train": 6, "test": 3},
}
VALUES = {
    "celeba": {"train": [*range(10)], "test": [10, 11, 12]},
    "celeba_aligned": {"train": [3, 1], "test": [2]},
    "afhq": {"train": [*range(12, 18)], "test": [20, 21, 22]},
}
"""The grey level of each image of the stand-ins, in order."""


def write_image(path: Path, level: int, size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Small CelebA-HQ, CelebA and AFHQ in their layouts; file names without padding."""
    for table, name in (("CELEBA_HQ", "celeba"), ("CELEBA", "celeba_aligned"), ("AFHQ", "afhq")):
        monkeypatch.setattr(folders, f"{table}_COUNTS", COUNTS[name])
        monkeypatch.setitem(data.DATASETS, name, replace(data.DATASETS[name], **COUNTS[name]))
    for number in range(13):
        write_image(tmp_path / f"CelebA-HQ/images-128/{number}.{'png' if number % 2 else 'JPG'}", number)
    for number, kind in enumerate(["cat"] * 4 + ["dog", "wild"]):
        write_image(tmp_path / f"AFHQ/afhq/train/{kind}/{8 + number}.png", 12 + number)
    for number, kind in enumerate(("cat", "dog", "wild")):
        write_image(tmp_path / f"AFHQ/afhq/val/{kind}/p.png", 20 + number)
    for number in range(4):
        write_image(tmp_path / f"celeba/img_align_celeba/{number}.png", number, size=(18, 24))
    partition = tmp_path / "celeba/list_eval_partition.txt"
    partition.write_text("3.png 0\n1.png 0\n0.png 1\n2.png 2\n")
    return tmp_path


def levels(images: np.ndarray) -> list[int]:
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("name", list(COUNTS))
def test_images_are_split_and_sorted_by_the_frozen_rule(photographs: Path, name: str) -> None:
    data.prepare(name, photographs, 32, photographs / "out")
    assert {split: levels(data.load(photographs / "out", split)) for split in data.SPLITS} == VALUES[name]


def test_celeba_hq_may_lie_in_either_folder(photographs: Path) -> None:
    (photographs / "CelebA-HQ/images-128").rename(photographs / "CelebA-HQ/images")
    data.check_source("celeba", photographs)


def test_celeba_is_the_middle_square(photographs: Path) -> None:
    path = photographs / "celeba/img_align_celeba/2.png"
    with Image.open(path) as image:
        image.paste((255, 255, 255), (0, 0, 18, 3))  # above the middle square
        image.save(path)
    (image,) = data.dataset("celeba_aligned").build(photographs, 18, "test")
    assert levels(image[None]) == [2]


def partition(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "celeba/list_eval_partition.txt").write_text(text)


def removed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "image of CelebA-HQ": (
        "celeba",
        lambda top: (top / "CelebA-HQ/images-128/5.png").unlink(),
        "12 images, should be 13",
    ),
    "image of AFHQ": ("afhq", lambda top: (top / "AFHQ/afhq/val/dog/p.png").unlink(), "2 images, should be 3"),
    "partition cut short": ("celeba_aligned", partition("1.png 0\n"), "1 images, should be 2"),
    "other partition": ("celeba_aligned", partition("../x 0\n"), "not the official partition"),
}
"""Data set, damage, part of the error."""


@pytest.mark.parametrize("case", DAMAGE)
def test_incomplete_folder_is_refused_by_check_fetch_and_prepare(photographs: Path, case: str) -> None:
    name, damage, words = DAMAGE[case]
    damage(photographs)
    with pytest.raises(ColdbenchError, match=words):
        data.check_source(name, photographs)
    with pytest.raises(ColdbenchError, match=words):
        data.fetch(name, photographs)
    with pytest.raises(ColdbenchError, match=words):
        data.prepare(name, photographs, 32, photographs / "out")


@pytest.mark.parametrize("name", [*COUNTS, "folder-birds"])
def test_missing_folder_says_what_to_put_where(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFile, match=r"does not exist: .* needs .* inside the data folder"):
        data.check_source(name, tmp_path)
    with pytest.raises(ColdbenchError, match=f"data set '{name}' cannot be downloaded"):
        data.fetch(name, tmp_path)


def test_image_that_cannot_be_decoded_is_named(photographs: Path) -> None:
    for name, file in (("celeba", "CelebA-HQ/images-128/11.png"), ("afhq", "AFHQ/afhq/val/dog/p.png")):
        (photographs / file).write_bytes(b"no image")
        data.check_source(name, photographs)
        with pytest.raises(ColdbenchError, match=f"{file} cannot be decoded as an image: "):
            data.prepare(name, photographs, 32, photographs / "out")


def test_any_folder_is_a_data_set_with_its_own_splits_or_each_tenth_image_for_testing(tmp_path: Path) -> None:
    for number in range(25):
        write_image(tmp_path / "cats" / f"{number}.png", number, size=(24, 20))
    write_image(tmp_path / "dogs/train/sub/a.png", 7)
    write_image(tmp_path / "dogs/test/sub/a.png", 9)
    splits = {}
    for name in ("cats", "dogs"):
        data.prepare(f"folder-{name}", tmp_path, 16, tmp_path / name / "out")
        splits[name] = [levels(data.load(tmp_path / name / "out", split)) for split in data.SPLITS]
    assert splits["cats"] == [[number for number in range(25) if number not in (9, 19)], [9, 19]]
    assert splits["dogs"] == [[7], [9]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ColdbenchError, match="empty holds no train images"):
        data.prepare("folder-empty", tmp_path, 16, tmp_path / "out")
