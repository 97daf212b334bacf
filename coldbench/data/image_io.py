"""Image files: which ones a folder holds and in what order, and their pixels at a size.

The order is part of a data set, because splits and seeds count images by their place in it. Files are sorted part by
part of their path below the folder, with runs of digits compared as numbers: 9.jpg, 10.jpg, 011.jpg, cat/1.jpg,
dog/1.jpg. Zero-padded and plain numbers thus give the same order on every file system.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError

if TYPE_CHECKING:  # the registry of data sets imports this module and must load without torch and Pillow
    from PIL import Image

SUFFIXES: tuple[str, ...] = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""How the names of image files end, in upper or lower case."""
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "JPEG2000", "PPM")
"""What an image file may hold, by content: Pillow would hand a disguised PostScript file to an interpreter."""
SMALLEST_SIDE, LARGEST_RATIO = 8, 50
"""Limits of an image of a data set, in pixels and as longer by shorter side. Beyond them hardly anything is seen."""
Part = list[str | int]
DIGITS = re.compile("([0-9]+)")
REASONS_SHOWN = 8
SHOWN = 80


def scan(folder: Path) -> tuple[list[str], Counter[str]]:
    """The image files in `folder` and below as paths relative to it, in natural order, and what was passed over.

    Links are followed. A folder that several links lead to, or one above itself, is listed once. Hidden files and
    folders do not count. What was passed over is counted by suffix or reason. ColdbenchError if a folder cannot be
    read, because a missing image would shift all those after it.
    """

    def stop(error: OSError) -> None:
        raise ColdbenchError(f"{shown(error.filename)} cannot be read: {error.strerror or error}") from error

    found: list[tuple[list[Part], str]] = []  # the text decides between names that differ in leading zeros only
    passed: Counter[str] = Counter()
    seen = set()
    pending = [folder]  # links to folders come last, so that a folder is listed under its own name
    for start in pending:
        for name, folders, files in os.walk(start, onerror=stop):
            place = Path(name)
            status = place.stat()
            if (status.st_dev, status.st_ino) in seen:
                passed["links to folders listed already"] += 1
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            passed["hidden"] += sum(each.startswith(".") for each in (*folders, *files))
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            pending += [place / each for each in folders if (place / each).is_symlink()]
            parts = place.relative_to(folder).parts
            keys, prefix = [natural_order(part) for part in parts], "".join(f"{part}/" for part in parts)
            for each in (each for each in files if not each.startswith(".")):
                if each.lower().endswith(SUFFIXES):
                    found.append(([*keys, natural_order(each)], prefix + each))
                else:
                    passed[_kind(place / each)] += 1
    return [name for _, name in sorted(found)], +passed


def _kind(path: Path) -> str:
    """What a file is that is no image: a suffix or a reason."""
    if not path.exists():
        return "broken links"
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "without a known suffix"


def list_images(folder: Path) -> list[Path]:
    """All image files in `folder` and below, in natural order; see `scan`."""
    return [folder / name for name in scan(folder)[0]]


def describe(passed: Counter[str]) -> str:
    """What a scan passed over, in words: the most frequent kinds with their numbers, or nothing."""
    parts = [f"{count} {kind}" for kind, count in passed.most_common(REASONS_SHOWN)]
    rest = passed.total() - sum(count for _, count in passed.most_common(REASONS_SHOWN))
    return ", ".join(parts + ([f"{rest} others"] if rest else []))


def shown(path: str | Path) -> str:
    """A path for a message: control characters and bytes that are no text are escaped, and a long one is cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))
    return text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"


def natural_order(name: str) -> Part:
    """The sort key of a name without folders: its text, and its runs of digits as numbers."""
    return [int(run) if place % 2 else run for place, run in enumerate(DIGITS.split(name))]


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """An image of a data set: the file `path` as RGB, brought to `size` by `resize_center_crop`, uint8 (3, size, size).

    Pixels are those that a viewer shows, as in `read`; grey images get three equal channels. ColdbenchError naming the
    file if it is unreadable, truncated, of no known format, narrower than SMALLEST_SIDE or longer than LARGEST_RATIO.
    """
    image = _decode(path, _read(path), "RGB")
    shorter, longer = sorted(image.size)
    if shorter < SMALLEST_SIDE or longer > LARGEST_RATIO * shorter:
        raise ColdbenchError(
            f"{shown(path)} has {image.width}x{image.height} pixels: an image of a data set needs sides of at least "
            f"{SMALLEST_SIDE}, the longer at most {LARGEST_RATIO} times the shorter; remove the file"
        )
    return resize_center_crop(image, size)


def read(path: Path, side: int, channels: int, resize: bool) -> tuple[NDArray[np.uint8], str]:
    """An image to restore or degrade: its pixels, uint8 (channels, side, side), and its file's SHA-256.

    The pixels are those that a viewer shows.
    The EXIF orientation is applied, transparency is dropped, and 16 bits become the nearest 8 (for colours Pillow keeps
    the upper 8). An animated file gives its first frame. One channel is the Rec. 601 luma, three are RGB. With `resize`
    the centre square is resized to `side` by antialiased bilinear interpolation. ColdbenchError naming the file if it
    is unreadable, truncated, of no known format, or, without `resize`, of another size.
    """
    content = _read(path)
    image = _decode(path, content, "RGB" if channels == 3 else "L").convert("RGB")
    width, height = image.size
    if not resize and (width, height) != (side, side):
        raise ColdbenchError(
            f"{shown(path)} has {width}x{height} pixels, but {side}x{side} are needed; "
            "--resize crops its centre square and resizes it"
        )
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = image.crop((left, top, left + shorter, top + shorter))
    return resize_center_crop(square, side)[:channels], hashlib.sha256(content).hexdigest()


def resize_center_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """A grey or RGB image with its shorter side resized to `size`, cropped around its centre: uint8 (C, size, size).

    8-bit bilinear interpolation with antialiasing, by Pillow; a square image of that size keeps every pixel. Sizes and
    offsets are rounded as by torchvision's Resize and CenterCrop.
    """
    from PIL import Image

    shorter = min(image.size)
    width, height = (size * side // shorter for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
    top, left = round((height - size) / 2), round((width - size) / 2)
    crop = pixels[top : top + size, left : left + size].reshape(size, size, -1)
    return np.ascontiguousarray(crop.transpose(2, 0, 1))


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise ColdbenchError(f"{shown(path)} cannot be read: it is no file")
        content = path.read_bytes()
    except OSError as error:
        raise ColdbenchError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
    if not content:
        raise ColdbenchError(f"{shown(path)} cannot be decoded as an image: it is empty")
    return content


def _decode(path: Path, content: bytes, mode: str) -> Image.Image:
    """The first frame of an image file, upright, in `mode` "RGB" or "L"."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            opened.load()
            image = _to_8_bits(_upright(opened))
            if image.mode == "P":
                image = image.convert("RGBA")  # a palette may be transparent
            return image.convert(mode)
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        reason = " ".join(re.sub("<_io.BytesIO[^>]*>", "its content", str(error)).split())[:SHOWN]
        raise ColdbenchError(
            f"{shown(path)} cannot be decoded as an image: {reason or type(error).__name__}"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; unchanged if that cannot be read, as in a viewer."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data of cameras and editors are damaged in many ways
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits rounded to the nearest 8, because Pillow would clip it; others of 8 bits unchanged."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("it holds floating-point numbers, whose range is unknown; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError("it holds values outside 16 bits; save it with 8 or 16 bits")
    return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
