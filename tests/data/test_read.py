"""Reading a user's image: its pixels are those that a viewer shows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coldbench.data import image_io

EVEN = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([EVEN, EVEN.T, 255 - EVEN], axis=-1)
LUMA = np.rint(COLOUR @ [0.299, 0.587, 0.114])


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    Image.fromarray(image).save(path, **options)
    return path


def seen(path: Path, channels: int, side: int = 16, resize: bool = False) -> np.ndarray:
    """The pixels that are read; the hash beside them is the file's."""
    pixels, digest = image_io.read(path, side, channels, resize)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (channels, side, side)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    return pixels.astype(int)


def test_grey_and_colour_become_the_channels_of_the_model(tmp_path):
    grey, colour = write(tmp_path / "grey.png", EVEN), write(tmp_path / "colour.png", COLOUR)
    np.testing.assert_array_equal(seen(grey, 1)[0], EVEN)
    np.testing.assert_array_equal(seen(grey, 3), np.stack([EVEN] * 3))
    np.testing.assert_array_equal(seen(colour, 3), COLOUR.transpose(2, 0, 1))
    assert np.abs(seen(colour, 1)[0] - LUMA).max() <= 1


def test_sixteen_bits_become_the_nearest_eight(tmp_path):
    wide = EVEN.astype(np.uint16) * 257
    np.testing.assert_array_equal(seen(write(tmp_path / "a.png", wide), 1)[0], EVEN)
    np.testing.assert_array_equal(seen(write(tmp_path / "b.png", wide), 3)[2], EVEN)
    between = np.full((16, 16), 1000 * 257 // 10, np.uint16)  # 100.0 levels
    np.testing.assert_array_equal(seen(write(tmp_path / "c.png", between + 128), 1), 100)
    np.testing.assert_array_equal(seen(write(tmp_path / "d.png", between + 129), 1), 101)


@pytest.mark.filterwarnings("error")
def test_palettes_are_looked_up_and_transparency_is_dropped(tmp_path):
    image = Image.fromarray(COLOUR)
    indexed = image.quantize(16)
    indexed.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    expected = np.asarray(indexed.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(seen(tmp_path / "palette.png", 3), expected)
    assert np.ptp(seen(tmp_path / "palette.png", 1)) > 100

    alpha = np.dstack([COLOUR, EVEN])
    np.testing.assert_array_equal(seen(write(tmp_path / "rgba.png", alpha), 3), COLOUR.transpose(2, 0, 1))
    np.testing.assert_array_equal(seen(write(tmp_path / "la.png", np.dstack([EVEN, EVEN.T])), 1)[0], EVEN)
    Image.fromarray(EVEN > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(seen(tmp_path / "bits.png", 1)[0], 255 * (EVEN > 99))
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(seen(tmp_path / "cmyk.jpg", 3) - COLOUR.transpose(2, 0, 1)).mean() < 8
    assert np.abs(seen(tmp_path / "cmyk.jpg", 1)[0] - LUMA).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_exif_orientation_is_applied(tmp_path, kind):
    smooth = np.add.outer(np.arange(16) * 10, np.arange(16) * 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left
    path = tmp_path / f"turned.{kind.lower()}"
    Image.fromarray(np.rot90(smooth)).save(path, kind, exif=exif, quality=100)
    assert np.abs(seen(path, 1)[0] - smooth).max() <= (0 if kind == "PNG" else 3)


def test_resizing_takes_the_centre_square(tmp_path):
    wide = np.zeros((32, 50), np.uint8)
    wide[:, 9:41] = EVEN.repeat(2, 0).repeat(2, 1)
    square = np.asarray(Image.fromarray(wide[:, 9:41]).resize((16, 16), Image.Resampling.BILINEAR))
    tall = write(tmp_path / "tall.png", np.ascontiguousarray(wide.T))
    np.testing.assert_array_equal(seen(write(tmp_path / "wide.png", wide), 1, resize=True)[0], square)
    np.testing.assert_array_equal(seen(tall, 1, resize=True)[0], square.T)
    np.testing.assert_array_equal(seen(write(tmp_path / "same.png", EVEN), 1, resize=True)[0], EVEN)
