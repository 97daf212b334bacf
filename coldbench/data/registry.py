"""The data sets, and what is known of each before its files are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.parameters import accepts
from coldbench.core.plugin_source import Component
from coldbench.data import embedded, folders, torchvision_sets

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """A data set and how to read it.

    `train` and `test` are numbers of images; 0 means unknown until `counts(folder)` has listed the files.
    `build(folder, size, split)` yields the images of a split in their fixed order, uint8 (channels, size, size); `size`
    is at least 8. `check(folder)` is fast and raises ColdbenchError if a source file is missing or has the wrong size
    or number of images. `files(folder)` lists the files that are read, relative to `folder` and in order, by what they
    are read for, and `report(folder)` logs which files are passed over. `download(folder)` gets the files. Embedded
    data sets come with the installed `package` and have none of these. `requirements` says which files to put where,
    and `preprocessing` how they become arrays. `source` is the hash of a plug-in's code.
    """

    name: str
    title: str
    channels: int
    train: int
    test: int
    build: Callable[[Path, int, str], Iterator[NDArray[np.uint8]]]
    requirements: str
    preprocessing: str
    package: str = ""
    check: Callable[[Path], None] | None = None
    files: Callable[[Path], dict[str, list[str]]] | None = None
    report: Callable[[Path], None] | None = None
    download: Callable[[Path], None] | None = None
    count: Callable[[Path], dict[str, int]] | None = None
    source: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the images need no files: they come with an installed package, or a plug-in makes them."""
        return self.check is None and self.files is None

    def counts(self, folder: Path) -> dict[str, int]:
        """The number of images of each split; fast. ColdbenchError for a folder that is absent or has too few."""
        return {"train": self.train, "test": self.test} if self.count is None else self.count(folder)


def _torchvision(name: str, source: torchvision_sets.Source, counts: tuple[int, int], preprocessing: str) -> Dataset:
    return Dataset(
        name=name,
        title=source.title,
        channels=source.channels,
        train=counts[0],
        test=counts[1],
        build=partial(torchvision_sets.build, source),
        requirements=source.requirements,
        preprocessing=preprocessing,
        check=partial(torchvision_sets.check, source),
        files=partial(torchvision_sets.files, source),
        download=partial(torchvision_sets.download, source),
    )


def _photographs(
    name: str, title: str, source: folders.Source, preprocessing: str, counts: dict[str, int] | None = None
) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        channels=3,
        train=counts["train"] if counts else 0,
        test=counts["test"] if counts else 0,
        build=source.build,
        requirements=source.requirements,
        preprocessing=f"{preprocessing}, 8-bit bilinear resize",
        check=source.check,
        files=source.files,
        report=source.report,
        count=None if counts else source.count,
    )


DATASETS: dict[str, Dataset] = {
    entry.name: entry
    for entry in (
        _torchvision(
            "mnist",
            torchvision_sets.MNIST,
            (60000, 10000),
            "the files of MNIST (images verified by SHA-256), 28x28, 8-bit bilinear resize",
        ),
        _torchvision(
            "cifar10",
            torchvision_sets.CIFAR10,
            (50000, 10000),
            "the batches of CIFAR-10 (MD5 verified), 32x32, 8-bit bilinear resize",
        ),
        _photographs(
            "celeba",
            "CelebA-HQ",
            folders.CELEBA_HQ,
            "CelebA-HQ in natural order of file names, the last 3000 for testing",
            folders.CELEBA_HQ_COUNTS,
        ),
        _photographs(
            "celeba_aligned",
            "CelebA",
            folders.CELEBA,
            "CelebA aligned and cropped, official partition, middle square",
            folders.CELEBA_COUNTS,
        ),
        _photographs(
            "afhq",
            "AFHQ",
            folders.AFHQ,
            "AFHQ (original release) in natural order of paths, val for testing",
            folders.AFHQ_COUNTS,
        ),
        Dataset(
            name="digits",
            title="scikit-learn digits",
            channels=1,
            train=1437,
            test=360,
            build=embedded.digits,
            requirements="nothing: the images come with scikit-learn",
            preprocessing="the 8x8 digits of scikit-learn, 8-bit bilinear resize, every fifth image for testing",
            package="scikit-learn",
        ),
        Dataset(
            name="photos",
            title="scikit-image photographs",
            channels=3,
            train=embedded.CROPS * len(embedded.PHOTOS["train"]),
            test=embedded.CROPS * len(embedded.PHOTOS["test"]),
            build=embedded.photos,
            requirements="nothing: the photographs come with scikit-image",
            preprocessing="crops of the photographs of scikit-image (train: {train}; test: {test})".format(
                **{split: ", ".join(Path(file).stem for file in files) for split, files in embedded.PHOTOS.items()}
            ),
            package="scikit-image",
        ),
    )
}


def dataset(name: str) -> Dataset:
    """The registered data set `name`, or the image folder for a name such as folder-cats.

    ColdbenchError naming the nearest one if there is none, or if NAME in folder-NAME is not the name of a folder.
    """
    if name.startswith(folders.PREFIX) and (place := name.removeprefix(folders.PREFIX)):
        return _photographs(name, place, folders.image_folder(place), f"the images of folder {place}")
    if name in DATASETS:
        return DATASETS[name]
    if name not in plugins.names("dataset"):
        raise unknown("data set", name, [*plugins.names("dataset"), f"{folders.PREFIX}NAME"])
    return _of_plugin(plugins.find("dataset", name))


def _of_plugin(component: Component) -> Dataset:
    registered = plugins.load("dataset", component.name, component.source)
    options: dict[str, Any] = {
        "title": component.name,
        "requirements": "nothing",
        "preprocessing": f"made by {component.name}",
    }
    options |= registered.options
    try:
        entry = Dataset(**options, name=component.name, build=registered.object, source=component.source)
    except TypeError as error:
        fields = ", ".join(each.name for each in dataclasses.fields(Dataset))
        raise ColdbenchError(f"{component}: {error} (options: {fields})") from error
    accepts(component, registered.object, "folder", "size", "split")
    for key in ("train", "test"):
        value = getattr(entry, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ColdbenchError(f"{component}: {key} must be a number of images, not {value!r}")
    if entry.channels not in (1, 3):
        raise ColdbenchError(f"{component}: channels must be 1 or 3, not {entry.channels!r}")
    return entry
