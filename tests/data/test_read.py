"""Reading a user's image: its pixels are those that a viewer shows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from coldbench.core.errors import ColdbenchError
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


SMOOTH = np.add.outer(np.arange(16) * 10, np.arange(16) * 3).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_by_both_readers(tmp_path, kind, orientation):
    stored = {
        1: SMOOTH, 2: SMOOTH[:, ::-1], 3: SMOOTH[::-1, ::-1], 4: SMOOTH[::-1], 5: SMOOTH.T, 6: np.rot90(SMOOTH),
        7: np.rot90(SMOOTH, 2).T, 8: np.rot90(SMOOTH, 3),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind.lower()}"
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    Image.fromarray(np.ascontiguousarray(stored[orientation])).convert("RGB").save(path, kind, exif=exif, **options)
    pixels = seen(path, 3)
    assert np.abs(pixels - SMOOTH).max() <= (3 if kind == "JPEG" else 0)
    np.testing.assert_array_equal(image_io.read_image(path, 16), pixels)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\xff", b"Exif\0\0nonsense", b"x" * 100])
def test_damaged_exif_data_turn_nothing(tmp_path, exif):
    path = write(tmp_path / "a.jpg", SMOOTH, exif=exif, quality=100)
    assert np.abs(seen(path, 1)[0] - SMOOTH).max() <= 3
    assert np.abs(image_io.read_image(path, 16).astype(int) - SMOOTH).max() <= 3


KINDS = {
    ".jpg": "JPEG", ".JPEG": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".PNG": "PNG", ".webp": "WEBP", ".avif": "AVIF",
    ".bmp": "BMP", ".GIF": "GIF", ".tif": "TIFF", ".TIFF": "TIFF", ".jp2": "JPEG2000", ".ppm": "PPM", ".pnm": "PPM",
}  # fmt: skip


def test_every_suffix_is_listed_and_read_alike_by_both_readers(tmp_path):
    """Animated files give their first frame."""
    colour = np.stack([SMOOTH, SMOOTH.T, 255 - SMOOTH], axis=-1)
    frames = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    animated = {"WEBP", "GIF", "TIFF", "PNG", "AVIF"}
    for suffix, kind in KINDS.items():
        more = {"save_all": True, "append_images": frames[1:]} if kind in animated else {}
        frames[0].save(tmp_path / f"a{suffix}", kind, **more, **({"lossless": True} if kind == "WEBP" else {}))
    write(tmp_path / "a.pgm", SMOOTH)
    Image.fromarray(SMOOTH > 99).save(tmp_path / "a.pbm")
    names, passed = image_io.scan(tmp_path)
    assert not passed
    assert {Path(name).suffix.lower() for name in names} == set(image_io.SUFFIXES)
    for path in image_io.list_images(tmp_path):
        pixels = seen(path, 3)
        np.testing.assert_array_equal(image_io.read_image(path, 16), pixels)
        if path.suffix.lower() not in (".pgm", ".pbm"):
            assert np.abs(pixels.transpose(1, 2, 0) - colour).mean() < 12, path


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS"])
@pytest.mark.parametrize("suffix", image_io.SUFFIXES[::5])
def test_other_formats_are_refused_whatever_the_suffix(tmp_path, kind, suffix):
    """PostScript would be handed to an interpreter; the others are not photographs."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path, kind)
    for call in (lambda: seen(path, 3), lambda: image_io.read_image(path, 16)):
        with pytest.raises(ColdbenchError, match=rf"a{suffix} cannot be decoded"):
            call()


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(EVEN.astype(np.float32) / 255, "floating-point"), (EVEN.astype(np.int32) * 70000, "outside 16 bits"),
     (EVEN.astype(np.int32) - 9, "outside 16 bits")],
)  # fmt: skip
def test_pixels_of_an_unknown_range_are_refused(tmp_path, pixels, words):
    """Pillow would clip them without a word."""
    path = write(tmp_path / "a.tif", pixels)
    for call in (lambda: seen(path, 3), lambda: image_io.read_image(path, 16)):
        with pytest.raises(ColdbenchError, match=rf"a\.tif cannot be decoded as an image: .*{words}"):
            call()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]), cut=st.floats(0, 1), seed=st.integers(0)
)
def test_damaged_file_is_read_or_named_in_one_line(tmp_path, kind, cut, seed):
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path, kind)
    content = bytearray(path.read_bytes())[: int(cut * 600) + 1]
    content[seed % len(content)] ^= 1 << seed % 8
    path.write_bytes(content)
    try:
        image_io.read_image(path, 16)
    except ColdbenchError as error:
        message = str(error)
    else:
        message = "read"
    assert message.isprintable()
    assert len(message) <= 300


def test_resizing_takes_the_centre_square(tmp_path):
    wide = np.zeros((32, 50), np.uint8)
    wide[:, 9:41] = EVEN.repeat(2, 0).repeat(2, 1)
    square = np.asarray(Image.fromarray(wide[:, 9:41]).resize((16, 16), Image.Resampling.BILINEAR))
    tall = write(tmp_path / "tall.png", np.ascontiguousarray(wide.T))
    np.testing.assert_array_equal(seen(write(tmp_path / "wide.png", wide), 1, resize=True)[0], square)
    np.testing.assert_array_equal(seen(tall, 1, resize=True)[0], square.T)
    np.testing.assert_array_equal(seen(write(tmp_path / "same.png", EVEN), 1, resize=True)[0], EVEN)
