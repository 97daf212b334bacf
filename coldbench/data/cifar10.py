"""CIFAR-10 (Krizhevsky 2009) from its author's files, binary or, failing those, pickled for Python; images only.

Both layouts hold the same pictures in the same order. 32x32 is the native size and leaves every pixel as it is.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, NotThere
from coldbench.core.files import atomic
from coldbench.data.image_files import fit


@dataclass(frozen=True)
class Batch:
    """A file of 10000 pictures: its name, size in bytes and MD5."""

    name: str
    size: int
    md5: str


BINARY, PICKLED = "cifar-10-batches-bin", "cifar-10-batches-py"
BATCHES: dict[str, dict[str, tuple[Batch, ...]]] = {
    # The author publishes only the archive's MD5. These six stand beside it in two independent public projects that
    # check them after unpacking it (rai-project/dldataset and a set of CMake scripts).
    BINARY: {
        "train": (
            Batch("data_batch_1.bin", 30730000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
            Batch("data_batch_2.bin", 30730000, "5ea93a67294ea407fff1d09f752e9692"),
            Batch("data_batch_3.bin", 30730000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
            Batch("data_batch_4.bin", 30730000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
            Batch("data_batch_5.bin", 30730000, "53f37980c15c3d472c316c40844f3f0d"),
        ),
        "test": (Batch("test_batch.bin", 30730000, "803d5f7f4d78ea53de84dbe85f74fb6d"),),
    },
    PICKLED: {  # MD5 as in torchvision
        "train": (
            Batch("data_batch_1", 31035704, "c99cafc152244af753f735de768cd75f"),
            Batch("data_batch_2", 31035320, "d4bba439e000b95fd0a9bffe97cbabec"),
            Batch("data_batch_3", 31035999, "54ebc095f3ab1f0389bbae665268c751"),
            Batch("data_batch_4", 31035696, "634d18415352ddfa80567beed471001a"),
            Batch("data_batch_5", 31035623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        ),
        "test": (Batch("test_batch", 31035526, "40351d587109b95175f43aff81a1287e"),),
    },
}
NEEDS = (
    "data_batch_1.bin to data_batch_5.bin and test_batch.bin in cifar-10-batches-bin inside the data folder, where "
    "cifar-10-binary.tar.gz unpacks them (or torchvision's cifar-10-batches-py); they can be downloaded"
)
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CHANNELS, SIDE = 3, 32
PIXELS = CHANNELS * SIDE * SIDE
TIMEOUT = 30  # seconds without a byte before the server is given up

# All that the pickles of arrays name, in numpy 1 and 2. None of these runs code of the file's choosing.
HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


def build(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The pictures of `split` in file order, each uint8 (3, size, size); other sizes than 32 by `images_on_disk.fit`.

    ColdbenchError if a file is missing, unreadable, or not CIFAR-10 by its MD5.
    """
    from PIL import Image

    layout = _layout(folder)
    for batch in BATCHES[layout][split]:
        for picture in _read(folder / layout, batch):
            yield fit(Image.fromarray(picture.transpose(1, 2, 0)), size)


def check(folder: Path) -> None:
    """Raise ColdbenchError, naming the file, if one of the six is missing or has the wrong size."""
    layout = _layout(folder)
    for batch in _all(layout):
        path = folder / layout / batch.name
        if not path.is_file():
            raise NotThere(f"{path} does not exist: CIFAR-10 needs {NEEDS}")
        found = path.stat().st_size
        if found != batch.size:
            raise ColdbenchError(f"{path} is truncated or damaged: {found} bytes, should be {batch.size}")


def download(folder: Path) -> None:
    """Put the six binary files, verified, into `folder`/cifar-10-batches-bin.

    The archive (170 MB) lies in an unnamed temporary file meanwhile. ColdbenchError, telling what to put where, if it
    does not come or is not the one published.
    """
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(URL, timeout=TIMEOUT) as answer:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as packed:
                shutil.copyfileobj(answer, packed)
                packed.seek(0)
                found = hashlib.file_digest(packed, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
                if found != ARCHIVE_MD5:
                    raise ColdbenchError(f"what came is not the archive: MD5 {found}, should be {ARCHIVE_MD5}")
                packed.seek(0)
                _unpack(packed, folder / BINARY)
    except (OSError, EOFError, zlib.error, tarfile.TarError, HTTPException, ColdbenchError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ColdbenchError(f"cannot download CIFAR-10 ({URL}: {reason}); put {NEEDS.partition(';')[0]}") from error


def _unpack(packed: IO[bytes], place: Path) -> None:
    """Write the six expected members, verified, to `place`. No name in the archive ever becomes a path."""
    wanted = {f"{BINARY}/{batch.name}": batch for batch in _all(BINARY)}
    with tarfile.open(fileobj=packed, mode="r:gz") as archive:
        for member in archive:
            if member.name not in wanted or not member.isreg():
                continue
            stream = archive.extractfile(member)
            content = stream.read() if stream else b""
            batch = wanted.pop(member.name)
            _verify(content, batch, f"{member.name} in the archive")
            with atomic(place / batch.name) as temporary:
                temporary.write_bytes(content)
    if wanted:
        raise ColdbenchError(f"the archive lacks {', '.join(wanted)}")


def _layout(folder: Path) -> str:
    """The folder to read: the pickles only where there are no binary files at all."""
    return PICKLED if (folder / PICKLED).is_dir() and not (folder / BINARY).is_dir() else BINARY


def _all(layout: str) -> Iterator[Batch]:
    for batches in BATCHES[layout].values():
        yield from batches


def _read(place: Path, batch: Batch) -> NDArray[np.uint8]:
    """The verified pictures of a file: uint8 (n, 3, 32, 32)."""
    path = place / batch.name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise NotThere(f"{path} does not exist: CIFAR-10 needs {NEEDS}") from error
    except OSError as error:
        raise ColdbenchError(f"{path} cannot be read: {error.strerror or error}") from error
    _verify(content, batch, path)
    if place.name == PICKLED:
        rows = _unpickle(content, path)
    else:
        rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)[:, 1:]  # the first byte is the label
    return rows.reshape(-1, CHANNELS, SIDE, SIDE)


def _verify(content: bytes, batch: Batch, origin: object) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != batch.md5:
        raise ColdbenchError(f"{origin} is not {batch.name} of CIFAR-10: MD5 {found}, should be {batch.md5}")


class _ArraysOnly(pickle.Unpickler):
    """Loads arrays, dictionaries, lists, numbers and bytes; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        if name == "_reconstruct":
            module = "numpy._core.multiarray"  # where numpy 2 keeps it; the old place warns
        return super().find_class(module, name)


def _unpickle(content: bytes, path: Path) -> NDArray[np.uint8]:
    """The `data` of a pickled batch, uint8 (n, 3072); ColdbenchError naming `path` for any other pickle."""
    try:
        found = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()  # they were written by Python 2
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ColdbenchError(f"{path} is not a pickled batch of CIFAR-10: {' '.join(str(error).split())}") from error
    rows = found.get(b"data") if isinstance(found, dict) else None
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (PIXELS,):
        raise ColdbenchError(f"{path} is not a pickled batch of CIFAR-10: it lacks 'data', uint8 (10000, {PIXELS})")
    return rows
