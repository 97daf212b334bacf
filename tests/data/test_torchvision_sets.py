"""MNIST and CIFAR-10 by torchvision: tiny stand-ins in the exact layouts, damage, downloads, and the true MNIST."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import GOLDEN, REAL
from torchvision import datasets

from coldbench import data
from coldbench.core.errors import ColdbenchError, MissingFile
from coldbench.data import torchvision_sets

needs_mnist = pytest.mark.skipif(not data.available("mnist", REAL), reason="no MNIST: set COLDBENCH_TEST_DATA")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def idx_file(values: np.ndarray) -> bytes:
    """uint8 values as an idx file."""
    return np.array([0x800 + values.ndim, *values.shape], ">u4").tobytes() + values.tobytes()


def packed_tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class StandIn:
    """A small data set: `files` unpacked and `packed` as downloaded, by path in the data folder; arrays by split."""

    name: str
    source: torchvision_sets.Source
    files: dict[str, bytes]
    packed: dict[str, bytes]
    images: dict[str, np.ndarray]

    def write(self, folder: Path, packed: bool = False) -> Path:
        for name, content in (self.packed if packed else self.files).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def prepare(self, folder: Path, size: int) -> dict[str, np.ndarray]:
        data.prepare(self.name, folder, size, folder / "out")
        return {split: np.asarray(data.load(folder / "out", split)) for split in data.SPLITS}


def register(monkeypatch: pytest.MonkeyPatch, small: StandIn) -> StandIn:
    """Expect the sizes, checksums and counts of the stand-in."""
    counts = {split: len(images) for split, images in small.images.items()}
    monkeypatch.setitem(data.DATASETS, small.name, replace(data.DATASETS[small.name], **counts))
    for path, content in small.files.items():
        if (name := Path(path).name) in small.source.sizes:
            monkeypatch.setitem(small.source.sizes, name, len(content))
    return small


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Seven training images and test images 11 and 222 of MNIST."""
    with np.load(GOLDEN / "mnist_resize.npz") as golden:
        images = {"train": noise(7, 28, 28), "test": golden["mnist_uint8"]}
    files, resources = {}, []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files[f"MNIST/raw/{prefix}-images-idx3-ubyte"] = idx_file(images[split])
        files[f"MNIST/raw/{prefix}-labels-idx1-ubyte"] = idx_file(np.zeros(len(images[split]), np.uint8))
        digest = hashlib.sha256(images[split].tobytes()).hexdigest()
        monkeypatch.setitem(torchvision_sets.MNIST.sha256, split, digest)
    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
    resources = [(Path(name).name, md5(content)) for name, content in packed.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    channels = {split: array[:, None] for split, array in images.items()}
    return register(monkeypatch, StandIn("mnist", torchvision_sets.MNIST, files, packed, channels))


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Two images a training batch, three in the test batch."""
    place = "cifar-10-batches-py"
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    arrays = {name: noise(3 if name == "test_batch" else 2, 3, 32, 32, seed=seed) for seed, name in enumerate(names)}
    files = {
        f"{place}/{name}": pickle.dumps({"data": array.reshape(len(array), -1), "labels": [0] * len(array)}, protocol=2)
        for name, array in arrays.items()
    }
    files[f"{place}/batches.meta"] = pickle.dumps({"label_names": ["a"]}, protocol=2)
    packed = {"cifar-10-python.tar.gz": packed_tar(files)}
    sums = {Path(name).name: md5(content) for name, content in files.items()}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, sums[name]] for name in names[:-1]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(packed["cifar-10-python.tar.gz"]))
    images = {"train": np.concatenate([arrays[name] for name in names[:-1]]), "test": arrays["test_batch"]}
    return register(monkeypatch, StandIn("cifar10", torchvision_sets.CIFAR10, files, packed, images))


@pytest.fixture(params=["mnist", "cifar10"])
def small(request: pytest.FixtureRequest) -> StandIn:
    """Each of the two stand-ins."""
    stand_in: StandIn = request.getfixturevalue(request.param)
    return stand_in


class Answer(io.BytesIO):
    """What urlopen returns."""

    def __init__(self, url: str, content: bytes) -> None:
        super().__init__(content)
        self.url, self.length = url, len(content)


def serve(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> list[str]:
    """Answer downloads by file name; returns the list of the URLs asked for."""
    asked: list[str] = []

    def urlopen(request: Any, *args: Any, **settings: Any) -> Answer:
        asked.append(request.full_url)
        name = Path(request.full_url).name
        if name not in contents:
            raise OSError("Name or service not known")
        return Answer(request.full_url, contents[name])

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_native_size_keeps_every_pixel(small: StandIn, tmp_path: Path) -> None:
    prepared = small.prepare(small.write(tmp_path), 28 if small.name == "mnist" else 32)
    for split in data.SPLITS:
        np.testing.assert_array_equal(prepared[split], small.images[split])


def test_mnist_is_resized_as_by_the_released_code(mnist: StandIn, tmp_path: Path) -> None:
    prepared = mnist.prepare(mnist.write(tmp_path), 32)["test"].astype(np.float32) / 255 * 2 - 1
    with np.load(GOLDEN / "mnist_resize.npz") as golden:
        np.testing.assert_allclose(prepared, golden["mnist_inpainting_dataset"], rtol=0, atol=1e-6)


@needs_mnist
def test_true_mnist_has_the_pinned_checksums_and_prepared_hash(tmp_path: Path) -> None:
    data.prepare("mnist", REAL, 32, tmp_path)
    assert data.load(tmp_path, "train").shape == (60000, 1, 32, 32)
    assert data.load(tmp_path, "test").shape == (10000, 1, 32, 32)
    assert data.info(tmp_path)["hash"] == "0d6685e3e70c"


def test_missing_or_truncated_file_is_named_before_any_work(small: StandIn, tmp_path: Path) -> None:
    small.write(tmp_path)
    name = next(iter(small.files))
    path, content = tmp_path / name, small.files[name]
    path.write_bytes(content[:-1])
    sizes = f"{len(content) - 1} bytes, should be {len(content)}"
    with pytest.raises(ColdbenchError, match=f"{name} is truncated or damaged: {sizes}"):
        data.prepare(small.name, tmp_path, 32, tmp_path / "out")
    path.unlink()
    assert not data.available(small.name, tmp_path)
    with pytest.raises(MissingFile, match=f"{name} does not exist: .* needs .* inside the data folder"):
        data.prepare(small.name, tmp_path, 32, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_changed_byte_is_found_by_prepare(small: StandIn, tmp_path: Path) -> None:
    small.write(tmp_path)
    path = tmp_path / next(name for name in small.files if "t10k-images" in name or "test_batch" in name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    data.check_source(small.name, tmp_path)
    with pytest.raises(ColdbenchError, match=f"{small.source.title}.*put .* inside the data folder") as caught:
        data.prepare(small.name, tmp_path, 32, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "info.json").exists()


def test_fetch_downloads_repairs_and_then_does_nothing(
    small: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(monkeypatch, {Path(name).name: content for name, content in small.packed.items()})
    damaged = tmp_path / list(small.files)[-2]
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a fi")
    data.fetch(small.name, tmp_path)
    assert files_in(tmp_path) == small.files
    assert asked
    asked.clear()
    data.fetch(small.name, tmp_path)
    assert asked == []


def test_fetch_unpacks_packed_files_without_a_network(
    small: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(monkeypatch, {})
    small.write(tmp_path, packed=True)
    data.fetch(small.name, tmp_path)
    assert files_in(tmp_path) == small.files | small.packed
    assert asked == []
    small.prepare(tmp_path, 32)


def test_fetch_removes_what_a_killed_one_left_long_ago(
    small: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But neither that of another process at work nor a user's folder."""
    serve(monkeypatch, {})
    small.write(tmp_path, packed=True)
    old, recent, other = (
        tmp_path / f".{name}" for name in (f"{small.source.dataset}.a", f"{small.source.dataset}.b", "c")
    )
    for folder in (old, recent, other):
        folder.mkdir()
        (folder / "half").touch()
    for folder in (old, other):
        os.utime(folder, (0, 0))
    data.fetch(small.name, tmp_path)
    assert [folder.exists() for folder in (old, recent, other)] == [False, True, True]


@pytest.mark.parametrize("damage", ["file", "dangling link"])
def test_folder_that_cannot_be_written_is_refused_before_the_download(
    small: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    asked = serve(monkeypatch, {})
    top = tmp_path / small.source.place.split("/")[0]
    top.touch() if damage == "file" else top.symlink_to("nowhere")
    with pytest.raises(ColdbenchError, match=f"cannot write .*{small.source.place}"):
        data.fetch(small.name, tmp_path)
    assert asked == []


def test_changed_or_damaged_files_of_a_source_do_not_fit(small: StandIn, tmp_path: Path) -> None:
    small.write(tmp_path)
    small.prepare(tmp_path, 32)
    assert data.prepared_fits(tmp_path / "out", small.name, 32, tmp_path)
    path = tmp_path / next(iter(small.files))
    os.utime(path, (1, 1))
    assert not data.prepared_fits(tmp_path / "out", small.name, 32, tmp_path)
    path.write_bytes(b"")
    assert not data.prepared_fits(tmp_path / "out", small.name, 32, tmp_path)


@pytest.mark.parametrize("failure", ["no network", "truncated", "wrong file", "a login page"])
def test_failed_download_leaves_no_file_and_says_what_to_put_where(
    small: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    content = {"truncated": b"", "wrong file": gzip.compress(b"other"), "a login page": b"<html>"}
    answers = {}
    if failure != "no network":
        answers = {Path(name).name: content[failure] or whole[:-20] for name, whole in small.packed.items()}
    serve(monkeypatch, answers)
    with pytest.raises(ColdbenchError, match=r"cannot be downloaded.*put .* inside the data folder") as caught:
        data.fetch(small.name, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == {}
    assert not data.available(small.name, tmp_path / "data")
