"""The data registry: what every data set promises, and what happens to damaged, missing and unreachable files."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import GOLDEN, REAL, ROOT

from coldbench import data
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256, write_json
from coldbench.data import embedded, mnist

EMBEDDED = [name for name, entry in data.DATASETS.items() if entry.embedded]
needs_mnist = pytest.mark.skipif(not data.available("mnist", REAL), reason="no MNIST: set COLDBENCH_TEST_DATA")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """MNIST test images 11 and 222, and what the released inpainting loader makes of them (its `note` tells how)."""
    with np.load(GOLDEN / "mnist_resize.npz") as stored:
        return dict(stored)


def idx_bytes(images: np.ndarray) -> bytes:
    """`images` (N, 28, 28) as an idx file."""
    return np.array([0x803, *images.shape], ">u4").tobytes() + images.tobytes()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, golden: dict[str, np.ndarray]) -> dict[str, bytes]:
    """A stand-in for MNIST of seven training and two test images: file contents by name; no file is written yet."""
    noise = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
    contents = {"train": idx_bytes(noise), "test": idx_bytes(golden["mnist_uint8"])}
    for split, content in contents.items():
        expected = replace(mnist.FILES[split], size=len(content), md5=hashlib.md5(content).hexdigest())
        monkeypatch.setitem(mnist.FILES, split, expected)
    monkeypatch.setitem(data.DATASETS, "mnist", replace(data.DATASETS["mnist"], train=7, test=2))
    return {mnist.FILES[split].name: content for split, content in contents.items()}


def write_all(folder: Path, contents: dict[str, bytes], packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_sets_keep_their_promises(name: str, tmp_path: Path) -> None:
    entry = data.dataset(name)
    data.check_source(name, None)
    data.fetch(name, None)
    for size, out in ((32, tmp_path / "a"), (32, tmp_path / "b"), (16, tmp_path / "c")):
        data.prepare(name, None, size, out)
        about = data.info(out)
        assert (about["name"], about["size"], about["embedded"]) == (name, size, True)
        assert about["sha256"] == {split: sha256(out / f"{split}.npy") for split in data.SPLITS}
        for split, count in (("train", entry.train), ("test", entry.test)):
            images = data.load(out, split)
            assert isinstance(images, np.memmap)
            assert images.shape == (count, entry.channels, size, size)
            assert images.dtype == np.uint8
            assert images.min() < 10 and images.max() > 245  # noqa: PT018 - one claim: the range 0..255 is used
    assert data.info(tmp_path / "a") == data.info(tmp_path / "b")
    assert data.info(tmp_path / "a")["hash"] != data.info(tmp_path / "c")["hash"]
    train, test = ({image.tobytes() for image in data.load(tmp_path / "a", split)} for split in data.SPLITS)
    assert len(train) == entry.train, "an image occurs twice"
    assert not train & test, "a test image was trained on"


def test_photographs_are_split_and_any_first_few_crops_show_all_of_them(tmp_path: Path) -> None:
    train, test = embedded.PHOTOS["train"], embedded.PHOTOS["test"]
    assert not set(train) & set(test)
    assert data.dataset("photos").train == embedded.CROPS * len(train)
    visited = [step * embedded.STRIDE % data.dataset("photos").test // embedded.CROPS for step in range(64)]
    assert min(visited.count(photo) for photo in range(len(test))) > 20


def test_the_largest_size_is_made_without_enlarging() -> None:
    crop = next(embedded.photos(Path(), data.LARGEST, "test"))
    assert crop.shape == (3, data.LARGEST, data.LARGEST)
    pixels = crop.astype(float)
    assert np.abs(np.diff(pixels, n=2, axis=-1)).mean() > 1  # an enlarged picture is nearly linear between its pixels


@pytest.mark.parametrize("place", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_found_verified_and_resized_like_the_released_code(
    tiny: dict[str, bytes], golden: dict[str, np.ndarray], tmp_path: Path, place: str, packed: bool
) -> None:
    write_all(tmp_path / place, tiny, packed)
    data.prepare("mnist", tmp_path, 32, tmp_path / "out")
    made = np.asarray(data.load(tmp_path / "out", "test"), np.float32) / 255 * 2 - 1
    np.testing.assert_allclose(made, golden["mnist_inpainting_dataset"], rtol=0, atol=1e-6)
    assert data.load(tmp_path / "out", "train").shape == (7, 1, 32, 32)


@needs_mnist
def test_the_real_mnist(golden: dict[str, np.ndarray], tmp_path: Path) -> None:
    data.prepare("mnist", REAL, 32, tmp_path)
    train, test = data.load(tmp_path, "train"), data.load(tmp_path, "test")
    assert (train.shape, test.shape) == ((60000, 1, 32, 32), (10000, 1, 32, 32))
    stored = np.round((golden["mnist_inpainting_dataset"] + 1) / 2 * 255)
    np.testing.assert_array_equal(test[[11, 222]], stored)


def missing(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").unlink()


def truncated(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])


def truncated_gz(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-50])
    path.unlink()


def empty_gz(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    (folder / f"{path.name}.gz").touch()
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, "does not exist.*torchvision"),
        (truncated, "is truncated.*1484 bytes, should be 1584"),
        (truncated_gz, r"\.gz is truncated.*should be 1584"),
        (empty_gz, r"\.gz is truncated.*0 bytes unpacked, should be 1584"),
    ],
)
def test_missing_and_truncated_sources_are_named_before_any_work(
    tiny: dict[str, bytes], tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(write_all(tmp_path / "MNIST" / "raw", tiny))
    assert not data.available("mnist", tmp_path)
    with pytest.raises(ColdbenchError, match=f"t10k-images-idx3-ubyte.*{words}"):
        data.prepare("mnist", tmp_path, 32, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_changed_byte_is_found_and_an_older_result_no_longer_counts(
    tiny: dict[str, bytes], tmp_path: Path, packed: bool
) -> None:
    source, out = write_all(tmp_path / "raw", tiny, packed), tmp_path / "out"
    data.prepare("mnist", tmp_path, 32, out)
    name = "t10k-images-idx3-ubyte"
    changed = tiny[name][:-1] + b"\x07"
    write_all(source, {name: changed}, packed)
    data.check_source("mnist", tmp_path)
    with pytest.raises(ColdbenchError, match=f"{name}.*{hashlib.md5(changed).hexdigest()}.*{mnist.FILES['test'].md5}"):
        data.prepare("mnist", tmp_path, 32, out)
    assert sorted(path.name for path in out.iterdir()) == ["test.npy", "train.npy"]
    with pytest.raises(ColdbenchError, match=r"info\.json does not exist"):
        data.load(out, "train")


def test_a_builder_that_yields_too_little_writes_nothing(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path, tiny)
    monkeypatch.setitem(data.DATASETS, "mnist", replace(data.DATASETS["mnist"], train=8))
    with pytest.raises(ColdbenchError, match=r"train\.npy"):
        data.prepare("mnist", tmp_path, 32, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_load_names_the_damaged_file(tmp_path: Path) -> None:
    data.prepare("digits", None, 16, tmp_path)
    path = tmp_path / "test.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:40], b"", b"x" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(ColdbenchError, match=r"test\.npy is damaged or truncated"):
            data.load(tmp_path, "test")
    np.save(path, np.zeros((360, 1, 16, 16), np.float32))
    with pytest.raises(ColdbenchError, match=r"test\.npy holds float32"):
        data.load(tmp_path, "test")
    path.unlink()
    with pytest.raises(ColdbenchError, match=r"test\.npy does not exist"):
        data.load(tmp_path, "test")
    about = data.info(tmp_path)
    counts = [None, 3, [360], {}, {"train": 1437}, {"train": None, "test": 360}, {"train": "1437", "test": 360}]
    for damaged in ({"name": "digits"}, [], *({**about, "counts": each} for each in counts)):
        write_json(tmp_path / "info.json", damaged)
        with pytest.raises(ColdbenchError, match=r"info\.json is damaged"):
            data.load(tmp_path, "train")


def test_wrong_words_are_answered_with_the_right_ones(tmp_path: Path) -> None:
    for call in (data.dataset, lambda name: data.available(name, None), lambda name: data.fetch(name, None)):
        with pytest.raises(ColdbenchError, match=r"unknown data set 'minst': did you mean 'mnist'\?"):
            call("minst")
    with pytest.raises(ColdbenchError, match="unknown split 'tests': did you mean 'test'"):
        data.load(tmp_path, "tests")
    for size in (-1, 15, 257):
        with pytest.raises(ColdbenchError, match=f"size {size} is out of range: 16 to 256"):
            data.prepare("digits", None, size, tmp_path)
    with pytest.raises(ColdbenchError, match="'mnist' needs a data folder"):
        data.prepare("mnist", None, 32, tmp_path)


def test_fetch_verifies_repairs_and_then_leaves_alone(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def serve(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        if "yann" not in url:
            raise OSError("down")
        return io.BytesIO(gzip.compress(tiny[url.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr("urllib.request.urlopen", serve)
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["https://first/", "https://yann/"])
    raw = tmp_path / "MNIST" / "raw"
    write_all(raw, {"t10k-images-idx3-ubyte": b"half a fi"})
    data.fetch("mnist", tmp_path)
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == tiny
    assert len(asked) == 4
    data.fetch("mnist", tmp_path)
    assert len(asked) == 4


@pytest.mark.parametrize("failure", ["no network", "truncated", "wrong file", "a login page"])
def test_a_failed_download_leaves_nothing(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    def serve(url: str, timeout: float) -> io.BytesIO:
        if failure == "no network":
            raise OSError("Name or service not known")
        packed = gzip.compress(tiny["train-images-idx3-ubyte"])
        answers = {"truncated": packed[:-20], "wrong file": gzip.compress(b"other"), "a login page": b"<html>"}
        return io.BytesIO(answers[failure])

    monkeypatch.setattr("urllib.request.urlopen", serve)
    with pytest.raises(ColdbenchError, match=r"cannot download MNIST.*put train-images-idx3-ubyte") as caught:
        data.fetch("mnist", tmp_path)
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not data.available("mnist", tmp_path)


def test_the_registry_is_light() -> None:
    heavy = "{'torch', 'torchvision', 'skimage', 'sklearn', 'PIL'}"
    code = f"import sys, coldbench.data; print(sorted({heavy} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"
