"""Prepared data sets: the registry's promises, the arrays on disk, and refusals."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from coldbench import data
from coldbench.core import files, plugins
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.data import embedded, folders, image_io, prepared


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and inode of each file: a file that was written again has another inode."""
    return {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()}


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


def test_failed_preparation_keeps_the_older_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.prepare("digits", None, 16, tmp_path)
    before = files_in(tmp_path)
    monkeypatch.setitem(data.DATASETS, "digits", replace(data.DATASETS["digits"], test=361))
    with pytest.raises(ColdbenchError, match=r"test\.npy"):
        data.prepare("digits", None, 20, tmp_path)
    assert files_in(tmp_path) == before


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


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """A data folder with twelve images in the folder cats."""
    for number in range(12):
        write_image(tmp_path / "data/cats" / f"{number}.png", number)
    return tmp_path / "data"


def write_image(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (level, level, level)).save(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1e-3) | st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)  # the header is at the start
@example(place=0.0001, bit=0)
@pytest.mark.parametrize("name", ["train.npy", "test.npy", "info.json"])
def test_flipped_bit_of_any_file_is_noticed_when_an_array_is_opened(digits, tmp_path, name, place, bit) -> None:
    """A flip may leave the value of info.json, as in the letters of an escape; then it changes nothing."""
    shutil.copytree(digits, tmp_path / "out", dirs_exist_ok=True)
    path, split = tmp_path / "out" / name, "test" if name == "test.npy" else "train"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        if name == "info.json" and json.loads(content) == json.loads((digits / name).read_text()):
            return
    with pytest.raises(ColdbenchError, match=rf"{name}.*(delete it|away)"):
        data.load(tmp_path / "out", split)


def test_info_cut_short_or_of_an_earlier_version_is_refused_and_never_fits(digits, tmp_path) -> None:
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    path, description = tmp_path / "info.json", data.info(digits)
    older = {key: value for key, value in description.items() if key not in ("source_digest", "bytes")}
    values = (older, {**description, "checksum": None}, {**description, "checksum": "0"}, [], None, 3, {}, "x")
    for content in (b"", b"{", b"\xff\xfe", path.read_bytes()[:-30], *(json.dumps(each).encode() for each in values)):
        path.write_bytes(content)
        with pytest.raises(ColdbenchError, match=r"info\.json is (damaged|of an earlier)"):
            data.load(tmp_path, "train")
        assert not data.prepared_fits(tmp_path, "digits", 16, None)
    data.prepare("digits", None, 16, tmp_path)
    assert data.info(tmp_path) == description


def test_content_is_compared_once_for_each_file(digits, tmp_path, monkeypatch) -> None:
    """Also if the array is as large and as old as the one before."""
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "train.npy"
    hashed: list[Path] = []
    monkeypatch.setattr(prepared, "sha256", lambda path: hashed.append(path) or sha256(path))
    for _ in range(3):
        data.load(tmp_path, "train")
    assert hashed == [path]
    status = path.stat()
    with files.atomic(path) as temporary:
        temporary.write_bytes(path.read_bytes()[:-1] + b"\xff")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ColdbenchError, match=r"train\.npy is damaged"):
        data.load(tmp_path, "train")


def test_finished_arrays_are_kept_and_damaged_ones_are_made_again(digits, tmp_path) -> None:
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    before = files_in(tmp_path)
    data.prepare("digits", None, 16, tmp_path)
    assert files_in(tmp_path) == before
    (tmp_path / "train.npy").write_bytes(before["train.npy"][0][:-1] + b"\xff")
    assert data.prepared_fits(tmp_path, "digits", 16, None)
    data.prepare("digits", None, 16, tmp_path)
    assert {name: content for name, (content, _) in files_in(tmp_path).items()} == {
        name: content for name, (content, _) in before.items()
    }


def touch(path: Path, seconds: int = 3) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda cats: write_image(cats / "99.png", 1),
    "removed": lambda cats: (cats / "0.png").unlink(),
    "renamed": lambda cats: (cats / "3.png").rename(cats / "30.png"),
    "touched": lambda cats: touch(cats / "3.png"),
    "of another size": lambda cats: (cats / "3.png").write_bytes(b""),
    "moved to the test images": lambda cats: [
        (cats / split).mkdir() or (cats / f"{number}.png").rename(cats / split / "x.png")
        for split, number in (("train", 0), ("test", 1))
    ],
    "moved behind a link": lambda cats: [
        cats.rename(cats.parent / "store"),
        cats.mkdir(),
        (cats / "more").symlink_to(cats.parent / "store"),
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_source_is_noticed_and_other_files_are_not(cats: Path, change: str) -> None:
    out = cats.parent / "out"
    data.prepare("folder-cats", cats, 16, out)
    (cats / "cats/readme.txt").touch()
    (cats / "dogs").mkdir()
    assert data.prepared_fits(out, "folder-cats", 16, cats)
    before = data.source_digest("folder-cats", cats)
    CHANGES[change](cats / "cats")
    assert data.source_digest("folder-cats", cats) != before
    assert not data.prepared_fits(out, "folder-cats", 16, cats)


def test_other_name_size_or_missing_array_does_not_fit_but_an_absent_source_does(cats: Path) -> None:
    out = cats.parent / "out"
    data.prepare("folder-cats", cats, 16, out)
    shutil.copytree(cats / "cats", cats / "dogs")
    assert not data.prepared_fits(out, "folder-dogs", 16, cats)
    assert not data.prepared_fits(out, "folder-cats", 20, cats)
    assert not data.prepared_fits(cats, "folder-cats", 16, cats)
    (cats / "cats").rename(cats / "away")
    assert data.prepared_fits(out, "folder-cats", 16, cats)
    (out / "test.npy").write_bytes(b"")
    assert not data.prepared_fits(out, "folder-cats", 16, cats)


def test_source_that_changes_while_it_is_read_is_refused(cats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_image(path: Path, size: int) -> np.ndarray:
        touch(path)
        return image_io.read_image(path, size)

    monkeypatch.setattr(folders, "read_image", read_image)
    with pytest.raises(ColdbenchError, match="'folder-cats' changed while"):
        data.prepare("folder-cats", cats, 16, cats.parent / "out")
    assert list((cats.parent / "out").iterdir()) == []


def test_embedded_source_changes_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    before = data.source_digest("digits", None), data.source_digest("photos", None)
    assert len(set(before)) == 2
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"99 of {package}")
    assert data.source_digest("digits", None) != before[0]
    assert data.source_digest("photos", None) != before[1]


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


def test_test_images_that_are_training_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "import numpy as np\nimport coldbench\n\n\n@coldbench.dataset('twice', channels=1, train=4, test=3)\n"
        "def twice(folder, size, split):\n    for k in range(4 if split == 'train' else 3):\n"
        "        yield np.full((1, size, size), k + 2 * (split == 'test'), np.uint8)\n"
    )
    (tmp_path / "twice.py").write_text(text)
    plugins.use([str(tmp_path / "twice.py")])
    try:
        data.prepare("twice", None, 16, tmp_path / "out")
    finally:
        plugins.use([])
    assert "2 of 3 test images of twice are training images, the first is test image 0" in caplog.text
