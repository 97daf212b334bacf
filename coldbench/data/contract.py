"""The laws of data sets, tried on all images at a small size; `core.laws` says what a law is."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError
from coldbench.core.laws import Broken, Law, Skipped
from coldbench.data.prepared import available
from coldbench.data.registry import SPLITS, Dataset, dataset

SIZE, OTHER_SIZE = 16, 32
AGAIN = 50
"""Images of each split that are read a second time."""
MOST_COPIES = 0.01
"""Share of a split's images that may be copies of others; MNIST and CIFAR-10 have fewer."""


@dataclass(frozen=True, eq=False)
class Case:
    """A data set and the folder of its files."""

    entry: Dataset
    folder: Path

    def __str__(self) -> str:
        return ""

    def images(self, split: str, size: int = SIZE) -> Iterator[NDArray[np.uint8]]:
        """The images of a split; `Skipped` if the files of the data set are not there."""
        if not self.entry.embedded and not available(self.entry.name, self.folder):
            raise Skipped(f"its files are not in {self.folder}")
        return self.entry.build(self.folder, size, split)

    @functools.cached_property
    def read(self) -> dict[str, list[Any]]:
        """Every image of both splits."""
        return {split: list(self.images(split)) for split in SPLITS}

    def hashes(self, split: str) -> list[bytes]:
        """A hash of every image of a split."""
        return [hashlib.sha256(image.tobytes()).digest() for image in self.read[split]]


def cases(name: str, parameters: Mapping[str, Any], data: Path) -> Iterator[Case]:
    """The data set; it has no parameters."""
    if parameters:
        raise ColdbenchError(f"data set {name} has no parameter '{min(parameters)}'")
    yield Case(dataset(name), data)


def shape_and_dtype(case: Case) -> str | None:
    """Images are uint8 (channels, size, size), at two sizes."""
    for split, size in itertools.product(SPLITS, (SIZE, OTHER_SIZE)):
        images = case.read[split] if size == SIZE else itertools.islice(case.images(split, size), 3)
        expected = (case.entry.channels, size, size)
        for number, image in enumerate(images):
            if not isinstance(image, np.ndarray) or (image.dtype, image.shape) != (np.uint8, expected):
                what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise Broken(f"{split} image {number} is {what}, not uint8 {expected}")
    return None


def counts(case: Case) -> str | None:
    """There are as many images as are declared, and some in each split."""
    read = case.read
    declared = case.entry.counts(case.folder)
    for split in SPLITS:
        if len(read[split]) != declared[split]:
            raise Broken(f"{split} has {len(read[split])} images, but {declared[split]} are declared")
        if len(read[split]) < 2:
            raise Broken(f"{split} has {len(read[split])} images, but 2 are the fewest")
    return ", ".join(f"{len(read[split])} {split}" for split in SPLITS)


def value_range(case: Case) -> str | None:
    """Values fill a good part of 0…255: images in 0…1 that became whole numbers do not."""
    for split in SPLITS:
        low, high = (
            min(int(image.min()) for image in case.read[split]),
            max(int(image.max()) for image in case.read[split]),
        )
        if high - low < 16:
            raise Broken(f"the values of {split} lie in {low}…{high}, not in 0…255")
    return None


def deterministic(case: Case) -> str | None:
    """The first images are the same when they are read again."""
    for split in SPLITS:
        for number, image in enumerate(itertools.islice(case.images(split), AGAIN)):
            if not np.array_equal(image, case.read[split][number]):
                raise Broken(f"{split} image {number} is another one when it is read again")
    return None


def different_images(case: Case) -> str | None:
    """Hardly any image of a split is a copy of another one."""
    notes = []
    for split in SPLITS:
        hashes = case.hashes(split)
        copies = len(hashes) - len(set(hashes))
        if copies > MOST_COPIES * len(hashes):
            raise Broken(f"{copies} of {len(hashes)} {split} images are copies of others")
        if copies:
            notes.append(f"{copies} of {len(hashes)} {split} images are copies of others")
    return ", ".join(notes)


def splits_are_disjoint(case: Case) -> str | None:
    """No test image is a training image."""
    training = set(case.hashes("train"))
    if shared := [number for number, each in enumerate(case.hashes("test")) if each in training]:
        raise Broken(f"{len(shared)} test images are training images, the first is test image {shared[0]}")
    return None


LAWS = (
    Law("shape and dtype", shape_and_dtype, basic=True),
    Law("counts", counts),
    Law("range", value_range),
    Law("deterministic", deterministic),
    Law("different images", different_images),
    Law("no test image in training", splits_are_disjoint),
)
