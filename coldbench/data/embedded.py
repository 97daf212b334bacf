"""Data sets that need no download: scikit-learn's digits and crops of the photographs inside the scikit-image wheel.

With them the whole suite runs on a machine without network. They are not the paper's data, so no number from them is
compared with a number of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError

# The split is by photograph, because crops overlap: a test image would otherwise show pixels of a training image.
PHOTOS = {
    "train": (
        "astronaut.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "test": ("chelsea.png", "coffee.png"),
}
GRID = 24  # crop positions per axis of a photograph
CROPS = 400  # crops used of a photograph's GRID × GRID; the flattest are left out (night sky, the rim of the retina)
CROPS_PER_SIDE = 5  # a crop is a fifth of the photograph's shorter side wide, so that it shows an object, not a surface
CROP_STEP = 1483  # prime: crops are taken in steps of this many, so that the first few show every photograph
TEST_EVERY = 5  # each fifth digit is a test image


def digits(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """scikit-learn's 1797 digits, 8x8 with values 0..16, stretched to 0..255 and resized: uint8 (1, size, size).

    Images 0, 5, 10, … are the test split. `folder` is ignored. Source: UCI ML hand-written digits (Alpaydin, Kaynak).
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    for index, digit in enumerate(load_digits().images):
        if (index % TEST_EVERY == 0) == (split == "test"):
            small = Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))
            resized = small.resize((size, size), Image.Resampling.BILINEAR)
            yield np.asarray(resized, dtype=np.uint8)[None]


def photos(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """Square crops of the photographs of `split`, CROPS of each, mixed: uint8 (3, size, size).

    Crops lie on an even GRID × GRID over the photograph. Each is a fifth of its shorter side wide, or `size` pixels if
    that is more, so that no crop is enlarged; it is reduced to `size` with antialiasing. The CROPS crops with the
    largest standard deviation of their pixels are used. Neighbours overlap, so crops are not independent samples.
    `folder` is ignored. ColdbenchError if the installed scikit-image lacks a photograph.
    """
    crops = [crop for name in PHOTOS[split] for crop in _textured(tuple(_crops(name, size)))]
    for step in range(len(crops)):
        yield crops[step * CROP_STEP % len(crops)]


def _textured(crops: tuple[NDArray[np.uint8], ...]) -> list[NDArray[np.uint8]]:
    """The CROPS crops with the largest standard deviation, in their order."""
    flattest_last = np.argsort([-crop.std() for crop in crops], kind="stable")
    return [crops[index] for index in sorted(flattest_last[:CROPS])]


def _crops(name: str, size: int) -> Iterator[NDArray[np.uint8]]:
    """All GRID × GRID crops of a photograph, row by row."""
    from PIL import Image

    with Image.open(_bundled(name)) as opened:
        photo = opened.convert("RGB")
    side = max(min(photo.size) // CROPS_PER_SIDE, size)
    lefts, tops = (np.linspace(0, length - side, GRID).round().astype(int).tolist() for length in photo.size)
    for top in tops:
        for left in lefts:
            box = (left, top, left + side, top + side)
            crop = photo.resize((size, size), Image.Resampling.BILINEAR, box=box)
            yield np.asarray(crop, dtype=np.uint8).transpose(2, 0, 1)


def _bundled(name: str) -> Path:
    """A photograph's file in the installed package, because `skimage.data` would try to download a missing one."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise ColdbenchError(
            f"{path} does not exist: this version of scikit-image lacks the photograph; install 0.25 or 0.26"
        )
    return path
