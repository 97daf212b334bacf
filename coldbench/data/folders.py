"""Folders of photographs: CelebA-HQ, CelebA, AFHQ, and any folder of images under the name `folder-NAME`.

No checksum is published for them. What is checked is the number of images, and that each can be decoded; the hash of
the prepared arrays distinguishes two copies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import WITH_REQUIREMENTS, ColdbenchError, MissingFile
from coldbench.data.image_io import list_images, read_image

PREFIX = "folder-"
LONGEST_NAME = 180
"""Bytes of a folder's name, because longer names of files are made of it and a file system takes 255."""
TEST_EVERY = 10
"""Without folders train and test, each tenth image of a folder is a test image."""

# The paper trained on 90 % of a directory listing in the order of its file system, which nobody can recover. The split
# by sorted name is frozen: another one would mix the training and test images of earlier models.
CELEBA_HQ_COUNTS = {"train": 27000, "test": 3000}
CELEBA_HQ_PLACES = ("CelebA-HQ/images-128", "CelebA-HQ/images")  # the released scripts read the first
CELEBA_COUNTS = {"train": 162770, "test": 19962}  # of 202599 images; the validation split is not used
CELEBA_SPLITS = {"train": "0", "test": "2"}  # as the official partition numbers them
AFHQ_COUNTS = {"train": 14630, "test": 1500}  # the original release; version 2 has 14336 and 1467
AFHQ_PLACES = {"train": "AFHQ/afhq/train", "test": "AFHQ/afhq/val"}
AFHQ_CLASSES = ("cat", "dog", "wild")


@dataclass(frozen=True)
class Source:
    """A data set of image files: `paths(folder, split)` lists the files of a split, in order.

    `paths` raises MissingFile if a folder is missing and ColdbenchError if the number of images is wrong.
    """

    paths: Callable[[Path, str], list[Path]]
    requirements: str

    def build(self, folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
        """The images of `split`: each uint8 (3, size, size). ColdbenchError naming a file that cannot be decoded."""
        for path in self.paths(folder, split):
            yield read_image(path, size)

    def check(self, folder: Path) -> None:
        """Raise MissingFile or ColdbenchError unless both splits have their number of images. No image is decoded."""
        for split in ("train", "test"):
            self.paths(folder, split)

    def count(self, folder: Path, split: str) -> int:
        """The number of images of `split`."""
        return len(self.paths(folder, split))


def _celeba_hq_paths(folder: Path, split: str) -> list[Path]:
    places = [folder / place for place in CELEBA_HQ_PLACES]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        raise MissingFile(f"{places[0]} does not exist: CelebA-HQ needs {CELEBA_HQ.requirements}")
    images = _complete(list_images(place), sum(CELEBA_HQ_COUNTS.values()), place, CELEBA_HQ.requirements)
    train = CELEBA_HQ_COUNTS["train"]
    return images[:train] if split == "train" else images[train:]


def _celeba_paths(folder: Path, split: str) -> list[Path]:
    partition = folder / "celeba" / "list_eval_partition.txt"
    try:
        lines = [line.split() for line in partition.read_text().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise MissingFile(f"{partition} does not exist: CelebA needs {CELEBA.requirements}") from error
    if any(len(line) != 2 or "/" in line[0] for line in lines):
        raise ColdbenchError(f"{partition} is not the official partition: each line must be a file name and 0, 1 or 2")
    place = partition.parent / "img_align_celeba"
    if not place.is_dir():
        raise MissingFile(f"{place} does not exist: CelebA needs {CELEBA.requirements}")
    images = [place / name for name, number in lines if number == CELEBA_SPLITS[split]]
    return _complete(images, CELEBA_COUNTS[split], partition, CELEBA.requirements)


def _afhq_paths(folder: Path, split: str) -> list[Path]:
    top = folder / AFHQ_PLACES[split]
    for place in (top / name for name in AFHQ_CLASSES):
        if not place.is_dir():
            raise MissingFile(f"{place} does not exist: AFHQ needs {AFHQ.requirements}")
    images = [path for name in AFHQ_CLASSES for path in list_images(top / name)]
    return _complete(images, AFHQ_COUNTS[split], top, AFHQ.requirements)


def _complete(images: list[Path], count: int, place: Path, requirements: str) -> list[Path]:
    if len(images) != count:
        message = f"{place} holds {len(images)} images, should be {count}: needed are {requirements}"
        raise ColdbenchError(message, WITH_REQUIREMENTS)
    return images


CELEBA_HQ = Source(
    _celeba_hq_paths,
    "the 30000 images of CelebA-HQ (jpg or png, any size: 128x128 is used as it is) in CelebA-HQ/images-128 or "
    "CelebA-HQ/images inside the data folder; licence and files: github.com/tkarras/progressive_growing_of_gans",
)
CELEBA = Source(
    _celeba_paths,
    "the aligned and cropped images of CelebA in celeba/img_align_celeba and the official partition in "
    "celeba/list_eval_partition.txt inside the data folder, as torchvision lays them out; licence and files: "
    "mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
)
AFHQ = Source(
    _afhq_paths,
    "the original AFHQ, not version 2: 14630 images in AFHQ/afhq/train/{cat,dog,wild} and 1500 in "
    "AFHQ/afhq/val/{cat,dog,wild} inside the data folder; licence and files: github.com/clovaai/stargan-v2",
)


def image_folder(name: str) -> Source:
    """The folder `name` inside the data folder as a data set of RGB images.

    Its folders train and test are the splits; without them each tenth image in natural order is a test image.
    ColdbenchError for a name that leads elsewhere, or that is too long to stand in the names of files.
    """
    if name in (".", "..") or re.search(r"[/\x00-\x1f\x7f-\x9f]", name) or len(os.fsencode(name)) > LONGEST_NAME:
        raise ColdbenchError(
            f"data set {PREFIX + name!r}: after {PREFIX} must stand the name of one folder inside the data folder, "
            f"without / and control characters, of at most {LONGEST_NAME} bytes"
        )
    requirements = (
        f"image files (jpg or png) in {name}/train and {name}/test, or all of them in {name}, inside the data folder"
    )

    def paths(folder: Path, split: str) -> list[Path]:
        top = folder / name
        if not top.is_dir():
            raise MissingFile(f"{top} does not exist: {PREFIX}{name} needs {requirements}")
        if (top / "train").is_dir() and (top / "test").is_dir():
            images = list_images(top / split)
        else:
            last = TEST_EVERY - 1
            images = [
                path for index, path in enumerate(list_images(top)) if (index % TEST_EVERY == last) == (split == "test")
            ]
        if not images:
            raise ColdbenchError(f"{top} holds no {split} images: needed are {requirements}")
        return images

    return Source(paths, requirements)
