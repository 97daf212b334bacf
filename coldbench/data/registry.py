"""What data sets there are, and what is known of each before a byte of it has been seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import unknown
from coldbench.data import celeba_afhq, cifar10, cifar10_copies, embedded, folders, mnist


@dataclass(frozen=True)
class Dataset:
    """What the suite knows of a data set before it has seen a byte of it.

    `build(folder, size, split)` yields the images of a split in their fixed order, uint8 (channels, size, size), at any
    size from 8 up. `check(folder)` is fast and raises ColdbenchError if a source file is missing or has the wrong size
    or number of images; `download(folder)` gets the files, where that is possible. Embedded data sets come inside an
    installed package and have neither. `train` and `test` are numbers of images; where they are 0, nothing is known of
    them before `count(folder, split)` has looked.
    """

    name: str
    title: str
    channels: int
    embedded: bool
    train: int
    test: int
    build: Callable[[Path, int, str], Iterator[NDArray[np.uint8]]]
    needs: str
    recipe: str
    check: Callable[[Path], None] | None = None
    download: Callable[[Path], None] | None = None
    count: Callable[[Path, str], int] | None = None

    def counts(self, folder: Path) -> dict[str, int]:
        """The number of images of each split; of an image folder, ColdbenchError if it holds none."""
        if self.count is None:
            return {"train": self.train, "test": self.test}
        return {split: self.count(folder, split) for split in ("train", "test")}


DATASETS: dict[str, Dataset] = {
    entry.name: entry
    for entry in (
        Dataset(
            name="mnist",
            title="MNIST",
            channels=1,
            embedded=False,
            train=60000,
            test=10000,
            build=mnist.build,
            needs=mnist.NEEDS,
            recipe="the idx files of MNIST (MD5 verified), 28x28, 8-bit bilinear resize",
            check=mnist.check,
            download=mnist.download,
        ),
        Dataset(
            name="cifar10",
            title="CIFAR-10",
            channels=3,
            embedded=False,
            train=50000,
            test=10000,
            build=cifar10.build,
            needs=cifar10.NEEDS,
            recipe="the batches of CIFAR-10 (MD5 verified), 32x32, 8-bit bilinear resize",
            check=cifar10.check,
            download=cifar10.download,
        ),
        Dataset(
            name="cifar10_jpeg",
            title="CIFAR-10 (JPEG copy)",
            channels=3,
            embedded=False,
            train=cifar10_copies.IMAGES["train"],
            test=cifar10_copies.IMAGES["test"],
            build=cifar10_copies.build_jpeg,
            needs=cifar10_copies.NEEDS,
            recipe="CIFAR-10 perturbed by JPEG compression, sorted by file name, 32x32, 8-bit bilinear resize",
            check=cifar10_copies.check_jpeg,
        ),
        Dataset(
            name="cifar10_part",
            title="CIFAR-10 (uncompressed part)",
            channels=3,
            embedded=False,
            train=cifar10_copies.KEPT["train"],
            test=cifar10_copies.KEPT["test"],
            build=cifar10_copies.build_part,
            needs=cifar10_copies.PART_NEEDS,
            recipe="a tenth of CIFAR-10, exact pixels, 32x32, 8-bit bilinear resize",
            check=cifar10_copies.check_part,
        ),
        Dataset(
            name="cifar10_part_jpeg",
            title="CIFAR-10 (JPEG copy of the uncompressed part)",
            channels=3,
            embedded=False,
            train=cifar10_copies.KEPT["train"],
            test=cifar10_copies.KEPT["test"],
            build=cifar10_copies.build_part_jpeg,
            needs=cifar10_copies.PART_JPEG_NEEDS,
            recipe="the pictures of cifar10_part perturbed by JPEG compression, 32x32, 8-bit bilinear resize",
            check=cifar10_copies.check_part_jpeg,
        ),
        Dataset(
            name="celeba",
            title="CelebA-HQ",
            channels=3,
            embedded=False,
            train=celeba_afhq.CELEBA["train"],
            test=celeba_afhq.CELEBA["test"],
            build=celeba_afhq.build_celeba,
            needs=celeba_afhq.CELEBA_NEEDS,
            recipe="CelebA-HQ in natural order of file names, the last 3000 for testing, 8-bit bilinear resize",
            check=celeba_afhq.check_celeba,
        ),
        Dataset(
            name="celeba_aligned",
            title="CelebA",
            channels=3,
            embedded=False,
            train=celeba_afhq.ALIGNED["train"],
            test=celeba_afhq.ALIGNED["test"],
            build=celeba_afhq.build_aligned,
            needs=celeba_afhq.ALIGNED_NEEDS,
            recipe="CelebA aligned and cropped, official partition, middle square, 8-bit bilinear resize",
            check=celeba_afhq.check_aligned,
        ),
        Dataset(
            name="afhq",
            title="AFHQ",
            channels=3,
            embedded=False,
            train=celeba_afhq.AFHQ["train"],
            test=celeba_afhq.AFHQ["test"],
            build=celeba_afhq.build_afhq,
            needs=celeba_afhq.AFHQ_NEEDS,
            recipe="AFHQ (original release) in natural order of paths, val for testing, 8-bit bilinear resize",
            check=celeba_afhq.check_afhq,
        ),
        Dataset(
            name="digits",
            title="scikit-learn digits",
            channels=1,
            embedded=True,
            train=1437,
            test=360,
            build=embedded.digits,
            needs="nothing: the images come with scikit-learn",
            recipe="the 8x8 digits of scikit-learn, 8-bit bilinear resize, every fifth image for testing",
        ),
        Dataset(
            name="photos",
            title="scikit-image photographs",
            channels=3,
            embedded=True,
            train=embedded.CROPS * len(embedded.PHOTOS["train"]),
            test=embedded.CROPS * len(embedded.PHOTOS["test"]),
            build=embedded.photos,
            needs="nothing: the photographs come with scikit-image",
            recipe="crops of the photographs of scikit-image (train: {train}; test: {test})".format(
                **{split: ", ".join(Path(file).stem for file in files) for split, files in embedded.PHOTOS.items()}
            ),
        ),
    )
}


def dataset(name: str) -> Dataset:
    """The registered data set called `name`, or the image folder that a name like folder-cats stands for.

    ColdbenchError naming the nearest one if there is none.
    """
    if name.startswith(folders.PREFIX) and (place := name.removeprefix(folders.PREFIX)):
        return _image_folder(name, place)
    if name not in DATASETS:
        raise unknown("data set", name, [*DATASETS, f"{folders.PREFIX}NAME"])
    return DATASETS[name]


def _image_folder(name: str, place: str) -> Dataset:
    def check(folder: Path) -> None:
        for split in ("train", "test"):
            folders.images(folder, place, split)

    return Dataset(
        name=name,
        title=place,
        channels=3,
        embedded=False,
        train=0,
        test=0,
        build=lambda folder, size, split: folders.build(folder, place, size, split),
        needs=folders.NEEDS.format(name=place),
        recipe=f"the images of folder {place}, 8-bit bilinear resize",
        check=check,
        count=lambda folder, split: len(folders.images(folder, place, split)),
    )
