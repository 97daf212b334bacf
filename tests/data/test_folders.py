"""Folders of photographs: splits and order, incomplete and damaged folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coldbench import data
from coldbench.core.errors import ColdbenchError, MissingFile
from coldbench.data import folders, image_io

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


def partition(text: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda folder: (folder / "celeba/list_eval_partition.txt").write_bytes(text.encode(encoding))


def nested(name: str) -> Callable[[Path], object]:
    """The folder `name` inside another one of its name, as unpacking leaves it."""

    def move(folder: Path) -> None:
        (folder / name).rename(folder / "moved")
        (folder / name).mkdir()
        (folder / "moved").rename(folder / name / Path(name).name)

    return move


def emptied(name: str) -> Callable[[Path], object]:
    return lambda folder: [path.unlink() for path in (folder / name).iterdir()]


GOOD = "3.png 0\n1.png 0\n0.png 1\n2.png 2\n"
DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "image of CelebA-HQ": (
        "celeba",
        lambda top: (top / "CelebA-HQ/images-128/5.png").unlink(),
        "12 images, should be 13",
    ),
    "image of AFHQ": ("afhq", lambda top: (top / "AFHQ/afhq/val/dog/p.png").unlink(), "2 images, should be 3"),
    "partition cut short": ("celeba_aligned", partition("1.png 0\n"), "1 images, should be 2"),
    "other partition": ("celeba_aligned", partition("../x 0\n"), "line 1"),
    "partition that leaves the folder": ("celeba_aligned", partition(GOOD.replace("1.png", "..")), "line 2"),
    "partition with a folder": ("celeba_aligned", partition(GOOD.replace("1.png", "a/1.png")), "line 2"),
    "unknown split": ("celeba_aligned", partition(GOOD.replace("g 1", "g 01")), "line 3"),
    "heading": ("celeba_aligned", partition("image_id,partition\n" + GOOD), "line 1"),
    "image twice": ("celeba_aligned", partition(GOOD.replace("2.png", "3.png")), "an image twice"),
    "UTF-16": ("celeba_aligned", partition(GOOD, "utf-16"), "list_eval_partition.txt is not the official"),
    "binary": ("celeba_aligned", partition("\0\0é", "latin-1"), "list_eval_partition.txt is not the official"),
    "no images of CelebA": ("celeba_aligned", emptied("celeba/img_align_celeba"), "lacks 2 of 2 train images"),
    "image of CelebA": ("celeba_aligned", lambda top: (top / "celeba/img_align_celeba/2.png").unlink(), "2.png"),
    "nested CelebA": ("celeba_aligned", nested("celeba/img_align_celeba"), "img_align_celeba/img_align_celeba holds"),
    "nested top of CelebA": ("celeba_aligned", nested("celeba"), "celeba/celeba holds"),
    "nested CelebA-HQ": ("celeba", nested("CelebA-HQ"), "CelebA-HQ/CelebA-HQ holds"),
    "nested AFHQ": ("afhq", nested("AFHQ/afhq"), "afhq/afhq holds"),
    "nested split of AFHQ": ("afhq", nested("AFHQ/afhq/val"), "val/val holds"),
}
"""Data set, damage, part of the error."""


@pytest.mark.parametrize("case", DAMAGE)
def test_incomplete_folder_is_refused_by_check_fetch_and_prepare(photographs: Path, case: str) -> None:
    name, damage, words = DAMAGE[case]
    damage(photographs)
    for call in (
        lambda: data.check_source(name, photographs),
        lambda: data.source_digest(name, photographs),
        lambda: data.fetch(name, photographs),
        lambda: data.prepare(name, photographs, 32, photographs / "out"),
    ):
        with pytest.raises(ColdbenchError, match=words) as caught:
            call()
        assert str(caught.value).isprintable()
        assert len(str(caught.value).replace(str(photographs), "data")) <= 300


@pytest.mark.parametrize("name", [*COUNTS, "folder-birds"])
def test_missing_folder_says_what_to_put_where(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFile, match=r"does not exist: .* needs .* inside the data folder"):
        data.check_source(name, tmp_path)
    with pytest.raises(ColdbenchError, match=f"'{name}' cannot be downloaded"):
        data.fetch(name, tmp_path)


def test_image_that_cannot_be_decoded_is_named(photographs: Path) -> None:
    for name, file in (("celeba", "CelebA-HQ/images-128/11.png"), ("afhq", "AFHQ/afhq/val/dog/p.png")):
        (photographs / file).write_bytes(b"no image")
        data.check_source(name, photographs)
        with pytest.raises(ColdbenchError, match=f"{file} cannot be decoded as an image: "):
            data.prepare(name, photographs, 32, photographs / "out")


def test_orientation_tag_turns_photographs_of_a_folder(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / f"cats/{number}.png", 255 * (number != 9))
    with Image.open(tmp_path / "cats/9.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 8  # stored turned to the right
        image.paste((255, 255, 255), (16, 0, 32, 32))
        image.save(tmp_path / "cats/9.png", exif=exif)
    data.prepare("folder-cats", tmp_path, 32, tmp_path / "out")
    (shown,) = data.load(tmp_path / "out", "test")
    assert (shown[:, :16] == 255).all()
    assert (shown[:, 16:] == 0).all()


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


@pytest.mark.parametrize(("count", "split"), [(0, "train"), (9, "test")])
def test_folder_with_too_few_images_is_refused_by_whatever_counts(tmp_path: Path, count: int, split: str) -> None:
    (tmp_path / "few").mkdir()
    for number in range(count):
        write_image(tmp_path / f"few/{number}.png", number)
    (tmp_path / "few/a.heic").touch()
    for call in (data.dataset("folder-few").counts, partial(data.fetch, "folder-few")):
        with pytest.raises(ColdbenchError, match=rf"few holds no {split} images among {count}; .*few/train.*1 \.heic"):
            call(tmp_path)


def test_counts_are_those_of_the_prepared_arrays(photographs: Path) -> None:
    for number in range(25):
        write_image(photographs / f"cats/{number}.png", number)
    for name in ("folder-cats", *COUNTS):
        out = photographs / "out" / name
        data.prepare(name, photographs, 16, out)
        counts = {split: len(data.load(out, split)) for split in data.SPLITS}
        assert data.dataset(name).counts(photographs) == counts == data.info(out)["counts"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    """Loops, links above the folder, two links to one folder, and links beside what they lead to."""
    top, store = tmp_path / "top", tmp_path / "store"
    for path in (top / "b/1.png", top / ".hidden/2.png", store / "3.png", store / "deep/4.png"):
        write_image(path, 1)
    for name, target in {
        "a": "b", "c": "../store", "d": "../store", "e": ".", "b/up": "..", "f": "f", "g": "nowhere", "h": ".hidden",
    }.items():  # fmt: skip
        (top / name).symlink_to(target)
    (store / "back").symlink_to(top)
    (top / "5.png").symlink_to(store / "3.png")
    names, passed = image_io.scan(top)
    assert names == ["5.png", "b/1.png", "c/3.png", "c/deep/4.png", "h/2.png"]
    assert passed == {"hidden": 1, "broken links": 2, "links to folders listed already": 5}


def test_what_is_passed_over_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(12):
        write_image(tmp_path / f"cats/{number}.png", number)
    for name in ("a.txt", "b.TXT", "c.heic", ".d", "e\nf.g\nh", "i", "j.ps", "k.svg"):
        (tmp_path / "cats" / name).touch()
    with caplog.at_level("INFO", "coldbench"):
        data.fetch("folder-cats", tmp_path)
        data.prepare("folder-cats", tmp_path, 16, tmp_path / "out")
    said = [line for line in caplog.messages if "passed over" in line]
    assert len(said) == 2
    for part in ("2 .txt", "1 .heic", "1 hidden", "2 without a known suffix", "1 .ps", "1 .svg", ".png", str(tmp_path)):
        assert part in said[0]
    for split in data.SPLITS:
        write_image(tmp_path / "dogs" / split / "1.png", 1)
    write_image(tmp_path / "dogs/val/1.png", 1)
    with caplog.at_level("INFO", "coldbench"):
        data.fetch("folder-dogs", tmp_path)
    assert "1 images outside train and test" in caplog.messages[-1]


NAMES = (
    "cats+dogs",
    "ca(ts)",
    "a|b",
    "100%",
    "two words",
    "größe 猫",
    ".hidden",
    "-x",
    "~",
    "$HOME",
    "a\\b",
    "*?[a]",
)


@pytest.mark.parametrize("name", [*NAMES, "two words"])
def test_folder_of_any_name_is_a_data_set(tmp_path: Path, name: str) -> None:
    for number in range(12):
        write_image(tmp_path / name / f"{number}.png", number)
    data.fetch(f"folder-{name}", tmp_path)
    data.prepare(f"folder-{name}", tmp_path, 16, tmp_path / "out")
    assert data.prepared_fits(tmp_path / "out", f"folder-{name}", 16, tmp_path)
    assert levels(data.load(tmp_path / "out", "test")) == [9]


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "/abs",
        "a/../b",
        "a/b",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "\udcff",
        "a\u2028b",
        "é" * 101,
        "x" * 10**6,
        "{a}",
        "a{",
        "cats" + "-x" * 20,
    ],
)
def test_name_that_is_no_folders_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    for call in (data.dataset, partial(data.fetch, folder=tmp_path), partial(data.source_digest, folder=tmp_path)):
        with pytest.raises(ColdbenchError, match=r"^data set .*folder-") as caught:
            call(f"folder-{name}")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"\x1b[2J", b"%s{}", b"1" * 251, b"-"])
def test_file_of_any_name_is_read_and_named_in_one_line(tmp_path: Path, name: bytes) -> None:
    for number in range(12):
        write_image(tmp_path / f"cats/{number}.png", number)
    before = data.source_digest("folder-cats", tmp_path)
    path = tmp_path / "cats" / os.fsdecode(name + b".png")
    write_image(path, 3)
    data.prepare("folder-cats", tmp_path, 16, tmp_path / "out")
    assert sum(data.info(tmp_path / "out")["counts"].values()) == 13
    assert data.source_digest("folder-cats", tmp_path) != before
    path.write_bytes(b"")
    with pytest.raises(ColdbenchError, match="it is empty") as caught:
        data.prepare("folder-cats", tmp_path, 16, tmp_path / "out")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


def image(*size: int) -> Callable[[Path], object]:
    return lambda path: write_image(path, 1, size)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "another content": lambda path: path.write_bytes(b"%!PS"),
    "narrow": image(7, 64),
    "flat": image(64, 1),
    "long": image(8, 8 * 51),
    "missing": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("case", BROKEN)
def test_image_that_is_too_small_broken_or_none_is_named(tmp_path: Path, case: str) -> None:
    for number in range(12):
        write_image(tmp_path / f"cats/{number}.png", number)
    BROKEN[case](tmp_path / "cats/x.png")
    with pytest.raises(ColdbenchError, match=r"cats/x\.png (has|cannot be)"):
        data.prepare("folder-cats", tmp_path, 16, tmp_path / "out")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("kind", "words"), [("file", "is no folder"), ("link", "is a link to a missing folder")])
def test_data_folder_that_is_none_is_refused(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "data"
    path.touch() if kind == "file" else path.symlink_to("nowhere")
    for name in (*COUNTS, "mnist", "cifar10", "folder-cats"):
        for call in (data.check_source, data.fetch, data.source_digest):
            with pytest.raises(ColdbenchError, match=words):
                call(name, path)
