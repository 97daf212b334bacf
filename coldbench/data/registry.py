"""The data sets, and what is known of each before its files are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import unknown
from coldbench.data import embedded, folders, torchvision_sets

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """A data set and how to read it.

    `train` and `test` are numbers of images; 0 means unknown until `count(folder, split)` has listed the files.
    `build(folder, size, split)` yields the images of a split in their fixed order, uint8 (channels, size, size); `size`
    is at least 8. `check(folder)` is fast and raises ColdbenchError if a source file is missing or has the wrong size
    or number of images. `download(folder)` gets the files. Embedded data sets come with an installed package and have
    neither. `requirements` says which files to put where, and `preprocessing` how they become arrays.
    """

    name: str
    title: str
    channels: int
    embedded: bool
    train: int
    test: int
    build: Callable[[Path, int, str], Iterator[NDArray[np.uint8]]]
    requirements: str
    preprocessing: str
    check: Callable[[Path], None] | None = None
    download: Callable[[Path], None] | None = None
    count: Callable[[Path, str], int] | None = None

    def counts(self, folder: Path) -> dict[str, int]:
        """The number of images of each split; ColdbenchError for a folder without images."""
        if self.count is None:
            return {"train": self.train, "test": self.test}
        return {split: self.count(folder, split) for split in SPLITS}


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
            build=partial(torchvision_sets.build, torchvision_sets.MNIST),
            requirements=torchvision_sets.MNIST.requirements,
            preprocessing="the files of MNIST (images verified by SHA-256), 28x28, 8-bit bilinear resize",
            check=partial(torchvision_sets.check, torchvision_sets.MNIST),
            download=partial(torchvision_sets.download, torchvision_sets.MNIST),
        ),
        Dataset(
            name="cifar10",
            title="CIFAR-10",
            channels=3,
            embedded=False,
            train=50000,
            test=10000,
            build=partial(torchvision_sets.build, torchvision_sets.CIFAR10),
            requirements=torchvision_sets.CIFAR10.requirements,
            preprocessing="the batches of CIFAR-10 (MD5 verified), 32x32, 8-bit bilinear resize",
            check=partial(torchvision_sets.check, torchvision_sets.CIFAR10),
            download=partial(torchvision_sets.download, torchvision_sets.CIFAR10),
        ),
        Dataset(
            name="celeba",
            title="CelebA-HQ",
            channels=3,
            embedded=False,
            train=folders.CELEBA_HQ_COUNTS["train"],
            test=folders.CELEBA_HQ_COUNTS["test"],
            build=folders.CELEBA_HQ.build,
            requirements=folders.CELEBA_HQ.requirements,
            preprocessing="CelebA-HQ in natural order of file names, the last 3000 for testing, 8-bit bilinear resize",
            check=folders.CELEBA_HQ.check,
        ),
        Dataset(
            name="celeba_aligned",
            title="CelebA",
            channels=3,
            embedded=False,
            train=folders.CELEBA_COUNTS["train"],
            test=folders.CELEBA_COUNTS["test"],
            build=folders.CELEBA.build,
            requirements=folders.CELEBA.requirements,
            preprocessing="CelebA aligned and cropped, official partition, middle square, 8-bit bilinear resize",
            check=folders.CELEBA.check,
        ),
        Dataset(
            name="afhq",
            title="AFHQ",
            channels=3,
            embedded=False,
            train=folders.AFHQ_COUNTS["train"],
            test=folders.AFHQ_COUNTS["test"],
            build=folders.AFHQ.build,
            requirements=folders.AFHQ.requirements,
            preprocessing="AFHQ (original release) in natural order of paths, val for testing, 8-bit bilinear resize",
            check=folders.AFHQ.check,
        ),
        Dataset(
            name="digits",
            title="scikit-learn digits",
            channels=1,
            embedded=True,
            train=1437,
            test=360,
            build=embedded.digits,
            requirements="nothing: the images come with scikit-learn",
            preprocessing="the 8x8 digits of scikit-learn, 8-bit bilinear resize, every fifth image for testing",
        ),
        Dataset(
            name="photos",
            title="scikit-image photographs",
            channels=3,
            embedded=True,
            train=embedded.CROPS * len(embedded.PHOTOS["train"]),
            test=embedded.CROPS * len(embedded.PHOTOS["test"]),
            build=embedded.photos,
            requirements="nothing: the photographs come with scikit-image",
            preprocessing="crops of the photographs of scikit-image (train: {train}; test: {test})".format(
                **{split: ", ".join(Path(file).stem for file in files) for split, files in embedded.PHOTOS.items()}
            ),
        ),
    )
}


def dataset(name: str) -> Dataset:
    """The registered data set `name`, or the image folder for a name such as folder-cats.

    ColdbenchError naming the nearest one if there is none, or for a folder whose name is no file name.
    """
    if name.startswith(folders.PREFIX) and (place := name.removeprefix(folders.PREFIX)):
        return _image_folder(name, place)
    if name not in DATASETS:
        raise unknown("data set", name, [*DATASETS, f"{folders.PREFIX}NAME"])
    return DATASETS[name]


def _image_folder(name: str, place: str) -> Dataset:
    source = folders.image_folder(place)
    return Dataset(
        name=name,
        title=place,
        channels=3,
        embedded=False,
        train=0,
        test=0,
        build=source.build,
        requirements=source.requirements,
        preprocessing=f"the images of folder {place}, 8-bit bilinear resize",
        check=source.check,
        count=source.count,
    )
