"""Single pictures of a user's: read as the network wants them, and written as 8-bit PNG."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.images import to_unit_interval
from coldbench.data.image_files import FORMATS, eight_bits, fit

Pixels = npt.NDArray[np.uint8]


def read(path: Path, side: int, channels: int, resize: bool) -> tuple[Pixels, str]:
    """A JPEG or PNG file as the pixels (channels, side, side) that it shows, and its content's hexadecimal SHA-256.

    It is turned as its EXIF tag says, transparency is dropped, a palette is looked up, and 16 bits become the nearest 8
    (of colours Pillow keeps the upper 8). One channel is the Rec. 601 luma, three are RGB. With `resize` the middle
    square is cut out and brought to `side` by antialiased bilinear interpolation. ColdbenchError naming the file if it
    cannot be read or decoded, or, without `resize`, if it has another size.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ColdbenchError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            picture = eight_bits(ImageOps.exif_transpose(opened))
            if picture.mode == "P":
                picture = picture.convert("RGBA")  # a palette may be transparent
            picture = picture.convert("RGB" if channels == 3 else "L").convert("RGB")
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        reason = " ".join(re.sub("<_io.BytesIO[^>]*>", "its content", str(error)).split())
        raise ColdbenchError(f"{path} cannot be decoded as an image: {reason or type(error).__name__}") from error
    width, height = picture.size
    if not resize and (width, height) != (side, side):
        raise ColdbenchError(
            f"{path} has {width}x{height} pixels, the model restores {side}x{side}; "
            "resize cuts out its middle square and brings it to that size"
        )
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = picture.crop((left, top, left + shorter, top + shorter))
    return fit(square, side)[:channels], hashlib.sha256(content).hexdigest()


def encode(x: Tensor, culprit: str) -> list[bytes]:
    """Images (N, C, H, W) in [-1, 1] as 8-bit PNG files; ColdbenchError that begins with `culprit` if any is not."""
    if not bool(x.isfinite().all()):
        raise ColdbenchError(f"{culprit} into values that are no numbers")
    levels = (to_unit_interval(x).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    files = []
    for picture in levels:
        stream = io.BytesIO()
        Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)).save(stream, "PNG")
        files.append(stream.getvalue())
    return files
