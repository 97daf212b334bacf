"""Image files of any origin as arrays: which ones a folder holds, in what order, and their pixels at a size.

The order is part of a data set: splits and seeds count images by their place in it. Files are sorted part by part of
their path below the folder, with runs of digits compared as numbers: 9.jpg, 10.jpg, 011.jpg, cat/1.jpg, dog/1.jpg.
Zero-padded and plain numbering thus give the same order, on every file system.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png")  # in any case; what the released code looks for
FORMATS = ("JPEG", "PNG")  # by content: Pillow would hand a disguised PostScript file to an interpreter


def list_images(folder: Path) -> list[Path]:
    """All image files in `folder` and below, sorted as this module says; hidden files and folders do not count.

    ColdbenchError if a folder cannot be read: an image that is silently left out would shift all those after it.
    """

    def stop(error: OSError) -> None:
        raise ColdbenchError(f"{error.filename} cannot be read: {error.strerror or error}") from error

    found = []
    for place, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = (name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [Path(place, name) for name in images]
    return sorted(found, key=lambda path: natural_order(path.relative_to(folder)))


def natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """The sort key of a file: see the module. Names that differ in leading zeros only are told apart by their text."""
    parts = [re.split("([0-9]+)", part) for part in path.parts]  # text and digits alternate, so like meets like
    return [[int(run) if place % 2 else run for place, run in enumerate(part)] for part in parts], str(path)


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """The image file `path`, uint8 (3, size, size); ColdbenchError naming it if it is unreadable or truncated."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ColdbenchError(f"{path} cannot be read: {error.strerror or error}") from error
    return decode(content, size, path)


def decode(content: bytes, size: int, origin: object) -> NDArray[np.uint8]:
    """A JPEG or PNG file's `content` as RGB, brought to `size` by `fit`: uint8 (3, size, size).

    Grey pictures get three equal channels, those of 16 bits the nearest 8 (`eight_bits`); transparency and orientation
    tags are ignored, as in the released loaders.
    ColdbenchError, beginning with `origin`, if the content is truncated or no such image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            picture = eight_bits(opened).convert("RGB")
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        reason = " ".join(re.sub("<_io.BytesIO[^>]*>", "its content", str(error)).split())
        raise ColdbenchError(f"{origin} cannot be decoded as an image: {reason or type(error).__name__}") from error
    return fit(picture, size)


def eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits brought to the nearest 8, where Pillow itself would clip; any other as it is."""
    from PIL import Image

    if not picture.mode.startswith("I"):
        return picture
    wide = np.asarray(picture).astype(np.uint32)
    return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))


def fit(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """An RGB picture with its shorter side brought to `size`, then cropped around its centre: uint8 (3, size, size).

    8-bit bilinear interpolation with antialiasing, by Pillow; a square picture of that size keeps every pixel. Sizes
    and offsets are rounded as by torchvision's Resize and CenterCrop.
    """
    from PIL import Image

    shorter = min(picture.size)
    width, height = (size * side // shorter for side in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.ascontiguousarray(pixels[top : top + size, left : left + size].transpose(2, 0, 1))
