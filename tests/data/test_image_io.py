"""Image files: their order, their pixels against torchvision and the released loaders, and damaged files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from cases import SHARED
from PIL import Image

from coldbench.core.errors import ColdbenchError
from coldbench.data import image_io


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """Pixels (H, W) or (H, W, C) as the content of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def read(folder: Path, content: bytes, size: int) -> np.ndarray:
    path = folder / "a.png"
    path.write_bytes(content)
    return image_io.read_image(path, size)


def test_images_are_listed_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    names = ["1.jpg", "2.PNG", "09.jpeg", "10.jpg", "b/1.jpg", "b2/1.jpg", "b10/1.jpg", "x9y.png", "x10y.png"]
    for name in [*reversed(names), "._1.jpg", ".cache/1.jpg", "readme.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in image_io.list_images(tmp_path)] == names
    with pytest.raises(ColdbenchError, match="nowhere cannot be read"):
        image_io.list_images(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [8, 28, 32, 35, 128, 143])
@pytest.mark.parametrize("shape", [(47, 31, 3), (32, 45, 3), (40, 40), (33, 50, 4)])
def test_images_are_resized_and_cropped_as_by_torchvision(tmp_path: Path, size: int, shape: tuple[int, ...]) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    content = encoded(noise(*shape))
    expected = Compose([Resize(size), CenterCrop(size)])(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(read(tmp_path, content, size), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.skipif(not (SHARED / "golden/data_pipeline.npz").is_file(), reason="no golden vectors at hand")
def test_images_have_the_pixels_of_the_released_loaders(tmp_path: Path) -> None:
    """The released evaluation loaders enlarge by 1.12 and crop the centre: read at 35 or 143, then crop."""
    with np.load(SHARED / "golden/data_pipeline.npz") as golden:
        for name, enlarged, size in (("cifar", 35, 32), ("celeba", 143, 128)):
            offset = round((enlarged - size) / 2)
            for pixels, expected in zip(golden[f"{name}_uint8"], golden[f"{name}_eval"], strict=True):
                image = read(tmp_path, encoded(pixels), enlarged)
                cropped = image[:, offset : offset + size, offset : offset + size].astype(np.float32)
                np.testing.assert_allclose(cropped / 255 * 2 - 1, expected, atol=1e-6)


def test_sixteen_bits_are_scaled_to_the_nearest_eight(tmp_path: Path) -> None:
    """Pillow alone would clip grey images of 16 bits, which makes nearly all of them white."""
    grey = noise(32, 32)
    for wide in (grey.astype(np.uint16) * 257, np.clip(grey.astype(np.int64) * 257 + 128, 0, 65535).astype(np.uint16)):
        np.testing.assert_array_equal(read(tmp_path, encoded(wide), 32), np.stack([grey] * 3))


MODES = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "L", "P", "1", "LA", "RGBA")}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
@pytest.mark.filterwarnings("ignore:Palette images")
def test_photographs_without_an_orientation_keep_the_pixels_of_pillow(tmp_path: Path, kind: str, mode: str) -> None:
    """The paper's own data sets are read as by the released loaders."""
    stream = io.BytesIO()
    transparency = {"transparency": bytes(range(256))} if mode == "P" else {}
    Image.fromarray(noise(32, 32, 3)).convert(mode).save(stream, kind, **transparency)
    expected = np.asarray(Image.open(stream).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(tmp_path, stream.getvalue(), 32), expected)


@pytest.mark.parametrize(
    "content", [encoded(noise(32, 32, 3), "JPEG")[:-300], encoded(noise(32, 32, 3))[:-300], b"", b"%!PS"]
)
def test_damaged_image_is_named_in_words_that_do_not_vary(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ColdbenchError, match=r"a\.png cannot be decoded as an image: ") as caught:
        read(tmp_path, content, 32)
    assert "0x" not in str(caught.value)
