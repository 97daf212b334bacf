"""MNIST (LeCun, Cortes and Burges) and CIFAR-10 (Krizhevsky, 2009), read and downloaded by torchvision; images only."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import WITH_REQUIREMENTS, ColdbenchError, MissingFile
from coldbench.core.files import check_writable
from coldbench.data.image_io import resize_center_crop

TIMEOUT = 30.0  # seconds without a byte before a download fails
ABANDONED = 24 * 3600.0  # seconds after which a temporary folder belongs to a killed process


@dataclass(frozen=True)
class Source:
    """A data set of torchvision and its files.

    `dataset` is the class in torchvision.datasets, `channels` those of its images. The files lie in `place` inside the
    data folder; `sizes` gives their bytes. `packed` names the files that torchvision downloads and unpacks, relative to
    the data folder. `sha256` holds the SHA-256 of the decoded uint8 images of each split.
    """

    dataset: str
    title: str
    channels: int
    place: str
    sizes: dict[str, int]
    packed: tuple[str, ...]
    requirements: str
    sha256: dict[str, str] = field(default_factory=dict)


MNIST = Source(
    dataset="MNIST",
    title="MNIST",
    channels=1,
    place="MNIST/raw",
    sizes={
        "train-images-idx3-ubyte": 47040016,
        "train-labels-idx1-ubyte": 60008,
        "t10k-images-idx3-ubyte": 7840016,
        "t10k-labels-idx1-ubyte": 10008,
    },
    packed=(
        "MNIST/raw/train-images-idx3-ubyte.gz",
        "MNIST/raw/train-labels-idx1-ubyte.gz",
        "MNIST/raw/t10k-images-idx3-ubyte.gz",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz",
    ),
    requirements=(
        "train-images-idx3-ubyte and the three like it in MNIST/raw inside the data folder; coldbench fetch downloads "
        "them, or unpacks those with .gz"
    ),
    sha256={
        "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    },
)
CIFAR10 = Source(
    dataset="CIFAR10",
    title="CIFAR-10",
    channels=3,
    place="cifar-10-batches-py",
    sizes={
        "data_batch_1": 31035704,
        "data_batch_2": 31035320,
        "data_batch_3": 31035999,
        "data_batch_4": 31035696,
        "data_batch_5": 31035623,
        "test_batch": 31035526,
    },
    packed=("cifar-10-python.tar.gz",),
    requirements=(
        "data_batch_1 to data_batch_5, test_batch and batches.meta in cifar-10-batches-py inside the data folder; "
        "coldbench fetch downloads them, or unpacks cifar-10-python.tar.gz"
    ),
    # No SHA-256 of the decoded images: torchvision checks the MD5 of each batch before it reads one.
)


def build(source: Source, folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The images of `split` in file order, brought to `size` by `resize_center_crop`: each uint8 (C, size, size).

    ColdbenchError if a file is missing or damaged, or if the images are not those of the data set.
    """
    from PIL import Image

    with _one_line_errors(source, folder, "cannot be read"):
        images = _decoded(source, folder, split)
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    expected = source.sha256.get(split, digest)
    if digest != expected:
        raise ColdbenchError(
            f"{folder / source.place} does not hold {source.title}: SHA-256 of its {split} images is {digest}, should "
            f"be {expected}; put {source.requirements}",
            WITH_REQUIREMENTS,
        )
    for image in images:
        yield resize_center_crop(Image.fromarray(image), size)


def check(source: Source, folder: Path) -> None:
    """Raise ColdbenchError if the size of a file is wrong, MissingFile if one is missing. No content is read."""
    paths = {folder / source.place / name: size for name, size in source.sizes.items()}
    for path, size in paths.items():  # damage first, because missing files are downloaded and damaged ones are refused
        if path.is_file() and path.stat().st_size != size:
            raise ColdbenchError(f"{path} is truncated or damaged: {path.stat().st_size} bytes, should be {size}")
    for path in paths:
        if not path.is_file():
            raise MissingFile(f"{path} does not exist: {source.title} needs {source.requirements}")


def files(source: Source, folder: Path) -> dict[str, list[str]]:
    """The files of `source`, relative to `folder`. ColdbenchError if `check` fails."""
    check(source, folder)
    return {"": [f"{source.place}/{name}" for name in source.sizes]}


def download(source: Source, folder: Path) -> None:
    """Put the files of `source` into `folder`, from packed files inside `folder` or from torchvision's servers.

    torchvision works in a temporary folder, so that an interrupted download leaves no partial file; that of a process
    killed long ago is removed. ColdbenchError if `folder` cannot be written, before the download, or if it fails or
    delivers other files.
    """
    for place in (folder, folder / source.place):
        check_writable(place / ".fetch")
    for leftover in folder.glob(f".{source.dataset}.*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > ABANDONED:
                shutil.rmtree(leftover)
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    temporary_folder = tempfile.TemporaryDirectory(prefix=f".{source.dataset}.", dir=folder)
    with _one_line_errors(source, folder, "cannot be downloaded"), temporary_folder as name:
        temporary = Path(name)
        for packed in source.packed:
            if (folder / packed).is_file():
                (temporary / packed).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / packed, temporary / packed)
        socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none and would wait for a silent server forever
        try:
            _decoded(source, temporary, "test", download=True)
        finally:
            socket.setdefaulttimeout(before)
        check(source, temporary)
        (folder / source.place).mkdir(parents=True, exist_ok=True)
        for path in (temporary / source.place).iterdir():
            if str(path.relative_to(temporary)) not in source.packed:
                path.replace(folder / source.place / path.name)


def _decoded(source: Source, folder: Path, split: str, download: bool = False) -> NDArray[np.uint8]:
    """The images of `split` as torchvision decodes them: uint8, (N, H, W) grey or (N, H, W, 3) in colour."""
    from torchvision import datasets

    images = getattr(datasets, source.dataset)(folder, train=split == "train", download=download).data
    return np.ascontiguousarray(images, dtype=np.uint8)


@contextlib.contextmanager
def _one_line_errors(source: Source, folder: Path, failure: str) -> Iterator[None]:
    """Turn every exception into a ColdbenchError, because files, servers and pickles raise many kinds of them."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        message = f"{source.title} {failure} in {folder} ({reason}); put {source.requirements}"
        raise ColdbenchError(message, WITH_REQUIREMENTS) from error
