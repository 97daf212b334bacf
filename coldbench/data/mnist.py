"""MNIST from its idx files (LeCun, Cortes, Burges), as torchvision lays them out; images only.

28x28 digits are brought to the working size by a plain 8-bit bilinear resize. The released loaders of the paper mostly
enlarge by 1.12 and crop, but the Degraded columns of DeviceCopies 1 to 3 match the plain resize only.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, NotThere
from coldbench.core.files import atomic


@dataclass(frozen=True)
class Idx:
    """An idx file of images: its name, and size in bytes and MD5 when unpacked."""

    name: str
    size: int
    md5: str


FILES = {
    "train": Idx("train-images-idx3-ubyte", 47040016, "6bbc9ace898e44ae57da46a324031adb"),
    "test": Idx("t10k-images-idx3-ubyte", 7840016, "2646ac647ad5339dbf082846283269ea"),
}
NEEDS = (
    "train-images-idx3-ubyte and t10k-images-idx3-ubyte (or the same with .gz) in MNIST/raw inside the data folder, "
    "where torchvision puts them; they can be downloaded"
)
HEADER, SIDE = 16, 28
TIMEOUT = 30  # seconds without a byte before a mirror is given up


def build(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The digits of `split` in file order, each uint8 (1, size, size).

    ColdbenchError if the file is missing, unreadable, or not MNIST by its MD5.
    """
    from PIL import Image

    idx = FILES[split]
    path = _locate(folder, idx)
    content = _read(path)
    _verify(content, idx, path)
    for digit in np.frombuffer(content, np.uint8, offset=HEADER).reshape(-1, SIDE, SIDE):
        resized = Image.fromarray(digit).resize((size, size), Image.Resampling.BILINEAR)
        yield np.asarray(resized, dtype=np.uint8)[None]


def check(folder: Path) -> None:
    """Raise ColdbenchError, naming the file, if an images file is missing or has the wrong (unpacked) size."""
    for idx in FILES.values():
        path = _locate(folder, idx)
        found = _unpacked_size(path)
        if found != idx.size:
            unpacked = " unpacked" if path.suffix == ".gz" else ""
            raise ColdbenchError(f"{path} is truncated or damaged: {found} bytes{unpacked}, should be {idx.size}")


def download(folder: Path) -> None:
    """Put both images files, unpacked and verified, into `folder`/MNIST/raw from torchvision's mirrors.

    A file already there and right by its MD5 is kept. ColdbenchError, telling what to put where, if every mirror fails.
    """
    from torchvision.datasets import MNIST

    for idx in FILES.values():
        path = folder / "MNIST" / "raw" / idx.name
        if path.is_file() and hashlib.md5(_read(path), usedforsecurity=False).hexdigest() == idx.md5:
            continue
        content = _retrieve(idx, [f"{mirror}{idx.name}.gz" for mirror in MNIST.mirrors], path)
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error


def _retrieve(idx: Idx, urls: list[str], path: Path) -> bytes:
    """The verified content of `idx` from the first of `urls` that delivers it; `path` only serves the message."""
    from http.client import HTTPException
    from urllib.request import urlopen

    failures = []
    for url in urls:
        try:
            with urlopen(url, timeout=TIMEOUT) as answer:
                content = gzip.decompress(answer.read())
            _verify(content, idx, url)
            return content
        except (OSError, EOFError, zlib.error, HTTPException, ColdbenchError) as error:
            failures.append(f"{url}: {' '.join(str(error).split()) or type(error).__name__}")
    raise ColdbenchError(
        f"cannot download MNIST ({'; '.join(failures)}); put {idx.name} or {idx.name}.gz into {path.parent}"
    )


def _locate(folder: Path, idx: Idx) -> Path:
    """The file of `idx`, plain before packed, in torchvision's place or a plausible simpler one."""
    for place in (folder / "MNIST" / "raw", folder / "raw", folder):
        for path in (place / idx.name, place / f"{idx.name}.gz"):
            if path.is_file():
                return path
    raise NotThere(f"{folder / 'MNIST' / 'raw' / idx.name} does not exist: MNIST needs {NEEDS}")


def _unpacked_size(path: Path) -> int:
    """Bytes in a file, or as its last four bytes tell if it is packed: a truncated .gz has arbitrary ones there."""
    size = path.stat().st_size
    if path.suffix != ".gz":
        return size
    with path.open("rb") as stream:
        stream.seek(max(0, size - 4))
        return int.from_bytes(stream.read(), "little")


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ColdbenchError(f"{path} cannot be read: {error}") from error


def _verify(content: bytes, idx: Idx, origin: object) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != idx.md5:
        raise ColdbenchError(f"{origin} is not {idx.name}: MD5 {found}, should be {idx.md5}")
