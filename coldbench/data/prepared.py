"""Prepared data sets: two arrays of uint8 images in a folder, written once and memory-mapped from then on.

The folder holds `train.npy` and `test.npy`, uint8 (N, C, size, size) with values 0…255, and `info.json`. `info.json` is
written last; a folder without it is not a prepared data set. It holds the SHA-256 of both arrays, which are compared
when an array is opened, and a checksum of itself. Labels are never used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, MissingFile, unknown
from coldbench.core.files import REPLACE, atomic, check_writable, read_json, sha256, write_json
from coldbench.core.logs import log
from coldbench.core.validation import fingerprint
from coldbench.data.image_io import shown
from coldbench.data.registry import SPLITS, Dataset, dataset

SMALLEST, LARGEST = 16, 256
"""Sides in pixels at which a data set can be prepared; the paper's largest is 143."""
REPAIR = "delete it and prepare the data set again"


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
            raise type(error)(f"{error}; '{shown(name)}' cannot be downloaded") from error
        entry.download(_required(entry, folder))
    if entry.report is not None:
        entry.report(_required(entry, folder))


def source_digest(name: str, folder: Path | None) -> str:
    """A digest of the source of data set `name` in `folder`: hexadecimal, 16 characters.

    It covers names, sizes and modification times of the files that would be read, in their order, and which split they
    belong to. Times do not count for data sets with checksums, which `prepare` verifies. An embedded data set has the
    version of its package, and a plug-in's the hash of its code. Fast: no file is opened but a list of splits.
    ColdbenchError if `check_source` would raise it, or if a file is none or a link to a missing one.
    """
    entry = dataset(name)
    digest = hashlib.sha256()
    if entry.source:
        digest.update(f"{entry.source}\n".encode())
    if entry.files is None:
        version = f"{entry.package} {importlib.metadata.version(entry.package)}" if entry.package else ""
        digest.update(version.encode())
        return digest.hexdigest()[:16]
    top = os.fspath(_required(entry, folder))
    for split, names in entry.files(Path(top)).items():
        digest.update(f"{split}\n".encode())
        for name in names:
            path = f"{top}/{name}"
            try:
                status = os.stat(path)  # noqa: PTH116 - without Path objects it is twice as fast
            except OSError as error:
                raise ColdbenchError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
            if not stat.S_ISREG(status.st_mode):
                raise ColdbenchError(f"{shown(path)} cannot be read: it is no file; move it away")
            time = 0 if entry.download else status.st_mtime_ns
            digest.update(os.fsencode(name) + f"\0{status.st_size} {time}\n".encode())
    return digest.hexdigest()[:16]


def prepared_fits(out: Path, name: str, size: int, folder: Path | None) -> bool:
    """Whether `out` holds data set `name` at `size` × `size` pixels, made from the source in `folder` as it is now.

    Fast: the files must have the size that info.json says; `load` compares their content. If the source is absent,
    nothing says that it changed, so that results can be used without it. False for data of an earlier version.
    """
    try:
        description = info(out)
        if (description["name"], description["size"]) != (name, size):
            return False
        if any((out / f"{split}.npy").stat().st_size != description["bytes"][split] for split in SPLITS):
            return False
        return bool(description["source_digest"] == source_digest(name, folder))
    except MissingFile:
        return True
    except (ColdbenchError, OSError):
        return False


def prepare(name: str, folder: Path | None, size: int, out: Path) -> None:
    """Write `out`/train.npy, `out`/test.npy and, last, `out`/info.json for data set `name` at `size` × `size` pixels.

    `folder` holds the source files (None for embedded data sets). The result depends on the source and `size` alone.
    Undamaged arrays of the same source and size are kept, and an older result is replaced when the new one is complete.
    ColdbenchError for an unknown name, a size outside 16…256, a missing or damaged source, or one that changes while it
    is read.
    """
    entry = dataset(name)
    if not SMALLEST <= size <= LARGEST:
        raise ColdbenchError(f"image size {size} is out of range: {SMALLEST} to {LARGEST} pixels are supported")
    if _kept(out, name, size, folder):
        return
    check_source(name, folder)
    check_writable(out / "info.json")
    if entry.report is not None:
        entry.report(_required(entry, folder))
    digest = source_digest(name, folder)
    counts = entry.counts(folder or Path())
    arrays = {split: out / f"{split}.npy" for split in SPLITS}
    with atomic(arrays["train"]) as train, atomic(arrays["test"]) as test:
        for split, path in (("train", train), ("test", test)):
            images = entry.build(folder or Path(), size, split)
            _write(path, arrays[split], images, (counts[split], entry.channels, size, size))
        _report_repeated(name, np.load(train, mmap_mode="r"), np.load(test, mmap_mode="r"))
        sums = {"train": sha256(train), "test": sha256(test)}
        if source_digest(name, folder) != digest:
            raise ColdbenchError(f"files of data set '{shown(name)}' changed while they were read: prepare it again")
        (out / "info.json").unlink(missing_ok=True)  # until the end the folder is not a prepared data set
    description = {
        "name": name,
        "title": entry.title,
        "channels": entry.channels,
        "size": size,
        "embedded": entry.embedded,
        "counts": counts,
        "bytes": {split: path.stat().st_size for split, path in arrays.items()},
        "sha256": sums,
        "hash": hashlib.sha256("".join(sums[split] for split in SPLITS).encode()).hexdigest()[:12],
        "source": f"{entry.preprocessing}, to {size}x{size} pixels",
        "source_digest": digest,
    }
    write_info(out, description)


def _report_repeated(name: str, train: NDArray[np.uint8], test: NDArray[np.uint8]) -> None:
    """Say how many test images are training images as well: scores on them are too good."""
    seen = {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in train}
    repeated = [k for k, image in enumerate(test) if hashlib.blake2b(image.tobytes(), digest_size=16).digest() in seen]
    if repeated:
        log.warning(
            "%d of %d test images of %s are training images, the first is test image %d",
            len(repeated), len(test), name, repeated[0],
        )  # fmt: skip


def _kept(out: Path, name: str, size: int, folder: Path | None) -> bool:
    """Whether `out` holds what `prepare` would write; logs why it does not if something is there."""
    if not (out / "info.json").exists():
        return False
    try:
        fits = prepared_fits(out, name, size, folder)
        for split in SPLITS if fits else ():
            load(out, split)
        info(out)
    except ColdbenchError as error:
        log.info("prepared again, because %s", error)
        return False
    log.info("kept: it holds this data set" if fits else "prepared again, because the source or the size is another")
    return fits


def write_info(out: Path, description: dict[str, Any]) -> None:
    """Write `out`/info.json with a checksum of itself."""
    write_json(out / "info.json", {**description, "checksum": fingerprint(description)})


def info(out: Path) -> dict[str, Any]:
    """What `prepare` wrote into `out`/info.json. ColdbenchError if `out` is not a prepared data set.

    ColdbenchError as well if the file is damaged or of an earlier version, which wrote no checksum.
    """
    path = out / "info.json"
    if not path.is_file():
        raise ColdbenchError(f"{path} does not exist: the data set is not prepared, or not completely")
    description = read_json(path)
    checksum = description.pop("checksum", None) if isinstance(description, dict) else None
    if checksum != fingerprint(description):
        if checksum:
            raise ColdbenchError(f"{path} is damaged: {REPAIR}")
        raise ColdbenchError(f"{path} is of an earlier version, damaged, or not of coldbench: {REPLACE}")
    return cast(dict[str, Any], description)


@contextlib.contextmanager
def unchanged(*folders: Path | None) -> Iterator[None]:
    """Raise ColdbenchError if a prepared data set is replaced inside the block, which reads its images and its hash."""
    given = [folder for folder in folders if folder is not None]
    before = [info(folder)["hash"] for folder in given]
    yield
    for folder, digest in zip(given, before, strict=True):
        if info(folder)["hash"] != digest:
            raise ColdbenchError(f"{folder} was prepared again while it was read: run again")


def load(out: Path, split: str) -> NDArray[np.uint8]:
    """The images of `split` ("train" or "test") in `out`: memory-mapped, read-only, uint8, (N, C, size, size).

    ColdbenchError if the file is missing, damaged, truncated, or not the array that info.json describes.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    description, path = info(out), out / f"{split}.npy"
    shape = (description["counts"][split], description["channels"], description["size"], description["size"])
    try:
        status = path.stat()
        content = _verified_sha256(path, status.st_size, status.st_mtime_ns, status.st_ino)
        # Only what is undamaged is parsed: numpy raises many kinds of errors for a damaged header.
        if content != description["sha256"][split]:
            raise ColdbenchError(f"{path} is damaged or truncated (SHA-256 not as in info.json): {REPAIR}")
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise ColdbenchError(f"{path} does not exist: prepare the data set again") from error
    except (OSError, ValueError, EOFError) as error:
        raise ColdbenchError(f"{path} is damaged or truncated ({error}): {REPAIR}") from error
    if images.dtype != np.uint8 or images.shape != shape:
        raise ColdbenchError(f"{path} holds {images.dtype} {images.shape}, info.json says uint8 {shape}: {REPAIR}")
    return cast(NDArray[np.uint8], images)


@functools.lru_cache(maxsize=64)
def _verified_sha256(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    """SHA-256 of a file, once a process; the other arguments tell another content under the same name."""
    return sha256(path)


def _required(entry: Dataset, folder: Path | None) -> Path:
    if folder is None:
        raise ColdbenchError(f"data set '{shown(entry.name)}' needs a data folder: {entry.requirements}")
    if os.path.lexists(folder) and not folder.is_dir():
        state = "is no folder" if folder.exists() else "is a link to a missing folder"
        raise ColdbenchError(f"data folder {shown(folder)} {state}: give the folder of the data sets")
    return folder


def _write(temporary: Path, path: Path, images: Iterator[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    """Stream `images` into an npy file by plain writes, because a memory map dies of SIGBUS on a full disk."""
    written = 0
    with temporary.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for number, image in enumerate(images):
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape[1:]:
                what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise ColdbenchError(f"image {number} for {path} is {what}, not uint8 {shape[1:]}")
            stream.write(image.tobytes())
            written += image.size
    if written != np.prod(shape):
        raise ColdbenchError(f"{path} would hold {written} bytes of pixels, {np.prod(shape)} are needed for {shape}")
