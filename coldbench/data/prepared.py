"""Prepared data sets: two arrays of uint8 images in a folder, written once and memory-mapped from then on.

The folder holds `train.npy` and `test.npy`, uint8 (N, C, size, size) with values 0…255, and `info.json`. `info.json` is
written last; a folder without it is not a prepared data set. Labels are never used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import atomic, read_json, sha256, write_json
from coldbench.data.registry import SPLITS, Dataset, dataset

SMALLEST, LARGEST = 16, 256
"""Sides in pixels at which a data set can be prepared; the paper's largest is 143."""
INFO_KEYS = {"name", "title", "channels", "size", "embedded", "counts", "sha256", "hash", "source"}


def check_source(name: str, folder: Path | None) -> None:
    """Raise ColdbenchError unless `folder` holds every file of data set `name`, each of the right size.

    Fast, because it runs before any work; `prepare` verifies the contents. Embedded data sets always pass. A missing
    file raises MissingFile.
    """
    entry = dataset(name)
    if entry.check is not None:
        entry.check(_required(entry, folder))


def available(name: str, folder: Path | None) -> bool:
    """Whether `check_source` passes."""
    dataset(name)  # an unknown name is an error, not an absence
    try:
        check_source(name, folder)
    except ColdbenchError:
        return False
    return True


def fetch(name: str, folder: Path | None) -> None:
    """Download data set `name` into `folder`, verified by checksums; does nothing if `check_source` passes.

    ColdbenchError if the data set cannot be downloaded or the download fails; no partial file is left then.
    """
    entry = dataset(name)
    try:
        check_source(name, folder)
    except ColdbenchError as error:
        if entry.download is None:
            raise type(error)(f"{error}; data set '{name}' cannot be downloaded") from error
        entry.download(_required(entry, folder))


def prepare(name: str, folder: Path | None, size: int, out: Path) -> None:
    """Write `out`/train.npy, `out`/test.npy and, last, `out`/info.json for data set `name` at `size` × `size` pixels.

    `folder` holds the source files (None for embedded data sets). The result depends on the source and `size` alone.
    ColdbenchError for an unknown name, a size outside 16…256, a missing or damaged source.
    """
    entry = dataset(name)
    if not SMALLEST <= size <= LARGEST:
        raise ColdbenchError(f"image size {size} is out of range: {SMALLEST} to {LARGEST} pixels are supported")
    check_source(name, folder)
    try:
        (out / "info.json").unlink(missing_ok=True)  # until the end the folder is not a prepared data set
    except OSError as error:
        raise ColdbenchError(f"cannot write {out}: {error.strerror or error}") from error
    counts = entry.counts(folder or Path())
    for split, count in counts.items():
        images = entry.build(folder or Path(), size, split)
        _write(out / f"{split}.npy", images, (count, entry.channels, size, size))
    sums = {split: sha256(out / f"{split}.npy") for split in SPLITS}
    description = {
        "name": name,
        "title": entry.title,
        "channels": entry.channels,
        "size": size,
        "embedded": entry.embedded,
        "counts": counts,
        "sha256": sums,
        "hash": hashlib.sha256("".join(sums[split] for split in SPLITS).encode()).hexdigest()[:12],
        "source": f"{entry.preprocessing}, to {size}x{size} pixels",
    }
    write_json(out / "info.json", description)


def info(out: Path) -> dict[str, Any]:
    """The content of `out`/info.json: the keys of INFO_KEYS. ColdbenchError if `out` is not a prepared data set."""
    path = out / "info.json"
    if not path.is_file():
        raise ColdbenchError(f"{path} does not exist: the data set is not prepared, or not completely")
    description = read_json(path)
    if not isinstance(description, dict) or not description.keys() >= INFO_KEYS:
        raise ColdbenchError(
            f"{path} is damaged: it lacks some of {', '.join(sorted(INFO_KEYS))}; prepare the data set again"
        )
    counts = description["counts"]
    if not isinstance(counts, dict) or not all(isinstance(counts.get(split), int) for split in SPLITS):
        raise ColdbenchError(f"{path} is damaged: counts must name train and test images; prepare the data set again")
    return description


def load(out: Path, split: str) -> NDArray[np.uint8]:
    """The images of `split` ("train" or "test") in `out`: memory-mapped, read-only, uint8, (N, C, size, size).

    ColdbenchError if the file is missing, damaged, truncated, or not the array that info.json describes.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    description, path = info(out), out / f"{split}.npy"
    shape = (description["counts"][split], description["channels"], description["size"], description["size"])
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise ColdbenchError(f"{path} does not exist: prepare the data set again") from error
    except (OSError, ValueError, EOFError) as error:
        raise ColdbenchError(f"{path} is damaged or truncated ({error}): prepare the data set again") from error
    if images.dtype != np.uint8 or images.shape != shape:
        raise ColdbenchError(
            f"{path} holds {images.dtype} {images.shape}, info.json says uint8 {shape}: prepare the data set again"
        )
    return cast(NDArray[np.uint8], images)


def _required(entry: Dataset, folder: Path | None) -> Path:
    if folder is None:
        raise ColdbenchError(f"data set '{entry.name}' needs a data folder: {entry.requirements}")
    return folder


def _write(path: Path, images: Iterator[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    """Stream `images` into an npy file by plain writes, because a memory map dies of SIGBUS on a full disk."""
    with atomic(path) as temporary:
        written = 0
        with temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for image in images:
                stream.write(image.tobytes())
                written += image.size
        if written != np.prod(shape):
            raise ColdbenchError(
                f"{path} would hold {written} bytes of pixels, {np.prod(shape)} are needed for {shape}"
            )
