"""Copies of CIFAR-10 that are not the whole original: JPEG files in two zips, and the uncompressed pixels of a part.

Compression changes every picture (by about 0.03 in RMSE), so the JPEG copy is good for trying code on real colour
photographs, not for a published number. The part is exact, and the JPEG versions of its pictures, in the same order,
tell what the compression alone does to a metric.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, NotThere
from coldbench.data.image_files import decode, fit

JPEG, PART = "cifar10-jpeg", "cifar10-raw-part"
IMAGES = {"train": 50000, "test": 10000}  # in the zips
KEPT = {"train": 5085, "test": 1017}  # in the part
SIDE = 32
NEEDS = (
    "train.zip and test.zip with 50000 and 10000 entries <class>/<number>.jpg in cifar10-jpeg inside the data folder"
)
PART_NEEDS = (
    "train.npz and test.npz (images: uint8 (n, 32, 32, 3), n = 5085 and 1017; jpeg_index: (n,)) in cifar10-raw-part "
    "inside the data folder"
)
PART_JPEG_NEEDS = f"{PART_NEEDS}, and {NEEDS}"


def build_jpeg(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The pictures of `split` in the order of the sorted names in its zip, each uint8 (3, size, size).

    ColdbenchError if the zip is missing, damaged or incomplete, or an entry is no image.
    """
    return _pictures(folder, size, split, range(IMAGES[split]))


def check_jpeg(folder: Path) -> None:
    """Raise ColdbenchError, naming the file, if a zip is missing or damaged or has the wrong number of entries."""
    for split in IMAGES:
        with _open(folder / JPEG / f"{split}.zip") as archive:
            _names(archive, split)


def build_part(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The uncompressed pictures of `split` in file order, each uint8 (3, size, size).

    ColdbenchError if the npz file is missing, damaged, or not as `PART_NEEDS` says.
    """
    from PIL import Image

    path = _npz(folder, split)
    images = _stored(path, "images")
    shape = (KEPT[split], SIDE, SIDE, 3)
    if images.dtype != np.uint8 or images.shape != shape:
        raise ColdbenchError(f"{path} holds images {images.dtype} {images.shape}, should be uint8 {shape}")
    for picture in images:
        yield fit(Image.fromarray(picture), size)


def check_part(folder: Path) -> None:
    """Raise ColdbenchError, naming the file, if an npz file is missing or damaged or has the wrong number of images."""
    for split in KEPT:
        _index(folder, split)


def build_part_jpeg(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The JPEG versions of the pictures that `build_part` yields, in the same order, each uint8 (3, size, size)."""
    return _pictures(folder, size, split, _index(folder, split).tolist())


def check_part_jpeg(folder: Path) -> None:
    """`check_part` and `check_jpeg`."""
    check_part(folder)
    check_jpeg(folder)


def _pictures(folder: Path, size: int, split: str, places: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """The pictures at `places` in the sorted list of names."""
    path = folder / JPEG / f"{split}.zip"
    with _open(path) as archive:
        names = _names(archive, split)
        for name in (names[place] for place in places):
            yield decode(_entry(archive, name), size, f"{path}: {name}")


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise NotThere(f"{path} does not exist: put {NEEDS}") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise ColdbenchError(f"{path} is truncated or no zip file: {error}") from error


def _names(archive: zipfile.ZipFile, split: str) -> list[str]:
    """The names of the pictures, sorted as text; every place in this list is part of the data set."""
    names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
    if len(names) != IMAGES[split]:
        raise ColdbenchError(f"{archive.filename} holds {len(names)} .jpg entries, should be {IMAGES[split]}")
    return names


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's content, checked against the CRC in the zip; nothing is written anywhere."""
    try:
        return archive.read(name)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ColdbenchError(f"{archive.filename}: {name} cannot be read: {error}") from error


def _npz(folder: Path, split: str) -> Path:
    return folder / PART / f"{split}.npz"


def _index(folder: Path, split: str) -> NDArray[np.int64]:
    """Where the pictures of the part stand in the sorted names of the zip of the same split: int64 (n,)."""
    path = _npz(folder, split)
    index = _stored(path, "jpeg_index")
    if index.shape != (KEPT[split],) or not np.issubdtype(index.dtype, np.integer):
        raise ColdbenchError(
            f"{path} holds jpeg_index {index.dtype} {index.shape}, should be integers ({KEPT[split]},)"
        )
    if index.min() < 0 or index.max() >= IMAGES[split] or len(np.unique(index)) != len(index):
        raise ColdbenchError(f"{path}: jpeg_index should be different places from 0 to {IMAGES[split] - 1}")
    return index.astype(np.int64)


def _stored(path: Path, key: str) -> NDArray[np.generic]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored[key])
    except FileNotFoundError as error:
        raise NotThere(f"{path} does not exist: put {PART_NEEDS}") from error
    except KeyError as error:
        raise ColdbenchError(f"{path} has no array {key}: it should be {PART_NEEDS}") from error
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ColdbenchError(f"{path} is truncated or no npz file: {error}") from error
