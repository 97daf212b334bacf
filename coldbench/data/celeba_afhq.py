"""CelebA-HQ, CelebA and AFHQ: folders of photographs that have to be fetched by hand.

No checksum is published for either, so what is checked is the number of images and that each can be decoded; the hash
of the prepared arrays tells two copies apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, NotThere
from coldbench.data.image_files import list_images, read_image

# The paper trained on 90 % of a directory listing in the order of its file system, which nobody can recover. The split
# by sorted name is frozen here: changing it would mix training and test images of earlier models.
CELEBA = {"train": 27000, "test": 3000}
CELEBA_PLACES = ("CelebA-HQ/images-128", "CelebA-HQ/images")  # the first is what the released scripts read
CELEBA_NEEDS = (
    "the 30000 images of CelebA-HQ (jpg or png, any size: 128x128 is used as it is) in CelebA-HQ/images-128 or "
    "CelebA-HQ/images inside the data folder; licence and files: github.com/tkarras/progressive_growing_of_gans"
)
ALIGNED = {"train": 162770, "test": 19962}  # of the 202599 images of CelebA, whose validation split is not used
ALIGNED_PARTS = {"train": "0", "test": "2"}  # as the official partition has it
ALIGNED_NEEDS = (
    "the aligned and cropped images of CelebA in celeba/img_align_celeba and the official partition in "
    "celeba/list_eval_partition.txt inside the data folder, as torchvision lays them out; licence and files: "
    "mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
)
AFHQ = {"train": 14630, "test": 1500}  # the original release; version 2 has 14336 and 1467
AFHQ_FOLDERS = {"train": "AFHQ/afhq/train", "test": "AFHQ/afhq/val"}
AFHQ_CLASSES = ("cat", "dog", "wild")
AFHQ_NEEDS = (
    "the original AFHQ, not version 2: 14630 images in AFHQ/afhq/train/{cat,dog,wild} and 1500 in "
    "AFHQ/afhq/val/{cat,dog,wild} inside the data folder; licence and files: github.com/clovaai/stargan-v2"
)


def build_celeba(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The first 27000 images, sorted as in `images_on_disk`, or the last 3000: each uint8 (3, size, size).

    ColdbenchError if there are not 30000, or naming the one that cannot be decoded.
    """
    images = _celeba(folder)
    for path in images[: CELEBA["train"]] if split == "train" else images[CELEBA["train"] :]:
        yield read_image(path, size)


def check_celeba(folder: Path) -> None:
    """Raise ColdbenchError if the folder is missing or the number of images is wrong."""
    _celeba(folder)


def build_aligned(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The images of the official training or test split, in the order of the partition: each uint8 (3, size, size).

    ColdbenchError if their number is wrong, or naming the one that cannot be decoded.
    """
    for path in _aligned(folder, split):
        yield read_image(path, size)


def check_aligned(folder: Path) -> None:
    """Raise ColdbenchError if the partition or the folder of images is missing, or a number is wrong."""
    for split in ALIGNED:
        _aligned(folder, split)
    top = folder / "celeba" / "img_align_celeba"
    if not top.is_dir():
        raise NotThere(f"{top} does not exist: CelebA needs {ALIGNED_NEEDS}")


def build_afhq(folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The images of train, or of val for testing, sorted as in `images_on_disk`: each uint8 (3, size, size).

    ColdbenchError if their number is wrong, or naming the one that cannot be decoded.
    """
    for path in _afhq(folder, split):
        yield read_image(path, size)


def check_afhq(folder: Path) -> None:
    """Raise ColdbenchError if a folder is missing or the number of images is wrong."""
    for split in AFHQ:
        _afhq(folder, split)


def _celeba(folder: Path) -> list[Path]:
    places = [folder / place for place in CELEBA_PLACES]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise NotThere(f"{places[0]} does not exist: CelebA-HQ needs {CELEBA_NEEDS}")
    return _complete(list_images(found), sum(CELEBA.values()), found, CELEBA_NEEDS)


def _aligned(folder: Path, split: str) -> list[Path]:
    partition = folder / "celeba" / "list_eval_partition.txt"
    try:
        lines = [line.split() for line in partition.read_text().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise NotThere(f"{partition} does not exist: CelebA needs {ALIGNED_NEEDS}") from error
    if any(len(line) != 2 or "/" in line[0] for line in lines):
        raise ColdbenchError(f"{partition} is not the official partition: each line must be a file name and 0, 1 or 2")
    images = [partition.parent / "img_align_celeba" / name for name, part in lines if part == ALIGNED_PARTS[split]]
    return _complete(images, ALIGNED[split], partition, ALIGNED_NEEDS)


def _afhq(folder: Path, split: str) -> list[Path]:
    top = folder / AFHQ_FOLDERS[split]
    for place in (top / name for name in AFHQ_CLASSES):
        if not place.is_dir():
            raise NotThere(f"{place} does not exist: AFHQ needs {AFHQ_NEEDS}")
    images = [path for name in AFHQ_CLASSES for path in list_images(top / name)]
    return _complete(images, AFHQ[split], top, AFHQ_NEEDS)


def _complete(images: list[Path], count: int, place: Path, needs: str) -> list[Path]:
    if len(images) != count:
        raise ColdbenchError(f"{place} holds {len(images)} images, should be {count}: needed are {needs}")
    return images
