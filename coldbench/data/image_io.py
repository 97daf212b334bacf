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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError

if TYPE_CHECKING:  # the registry of data sets imports this module and must load without torch and Pillow
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png")  # upper or lower case; the suffixes that the released code reads
FORMATS = ("JPEG", "PNG")  # by content: Pillow would hand a disguised PostScript file to an interpreter


def list_images(folder: Path) -> list[Path]:
    """All image files in `folder` and below, in natural order; hidden files and folders do not count.

    ColdbenchError if a folder cannot be read, because a missing image would shift all those after it.
    """

    def stop(error: OSError) -> None:
        raise ColdbenchError(f"{error.filename} cannot be read: {error.strerror or error}") from error

    paths = []
    for place, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = (name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        paths += [Path(place, name) for name in images]
    return sorted(paths, key=lambda path: natural_order(path.relative_to(folder)))


def natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """The sort key of a file. The path's text decides between names that differ in leading zeros only."""
    parts = [re.split("([0-9]+)", part) for part in path.parts]  # text and digits alternate
    return [[int(run) if place % 2 else run for place, run in enumerate(part)] for part in parts], str(path)


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """An image of a data set: the file `path` as RGB, brought to `size` by `resize_center_crop`, uint8 (3, size, size).

    Grey images get three equal channels; 16 bits become the nearest 8. Transparency and orientation tags are ignored,
    as in the released loaders. ColdbenchError naming the file if it is unreadable, truncated, or no JPEG or PNG.
    """
    return resize_center_crop(_decode(path, _read(path), lambda image: _to_8_bits(image).convert("RGB")), size)


def read(path: Path, side: int, channels: int, resize: bool) -> tuple[NDArray[np.uint8], str]:
    """An image to restore: its pixels as a viewer shows them, uint8 (channels, side, side), and its file's SHA-256.

    The EXIF orientation is applied, transparency is dropped, and 16 bits become the nearest 8 (for colours Pillow keeps
    the upper 8). One channel is the Rec. 601 luma, three are RGB. With `resize` the centre square is resized to `side`
    by antialiased bilinear interpolation. ColdbenchError naming the file if it is unreadable, truncated, no JPEG or
    PNG, or, without `resize`, of another size.
    """
    from PIL import ImageOps

    def upright(image: Image.Image) -> Image.Image:
        image = _to_8_bits(ImageOps.exif_transpose(image))
        if image.mode == "P":
            image = image.convert("RGBA")  # a palette may be transparent
        return image.convert("RGB" if channels == 3 else "L").convert("RGB")

    content = _read(path)
    image = _decode(path, content, upright)
    width, height = image.size
    if not resize and (width, height) != (side, side):
        raise ColdbenchError(
            f"{path} has {width}x{height} pixels, but the model restores {side}x{side}; "
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
        return path.read_bytes()
    except OSError as error:
        raise ColdbenchError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(path: Path, content: bytes, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            return convert(opened)
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        reason = " ".join(re.sub("<_io.BytesIO[^>]*>", "its content", str(error)).split())
        raise ColdbenchError(f"{path} cannot be decoded as an image: {reason or type(error).__name__}") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits rounded to the nearest 8, because Pillow would clip it; any other image unchanged."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
