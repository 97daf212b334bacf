"""Any folder of photographs as a data set: `folder-NAME` is the folder NAME inside the data folder.

With `train` and `test` inside, those are the splits; else every tenth image, in the order of `images_on_disk`, is for
testing. Nothing is known of such a set before it is read but that its images are RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import ColdbenchError, NotThere
from coldbench.data.image_files import list_images, read_image

PREFIX = "folder-"
EVERY = 10
NEEDS = "image files (jpg or png) in {name}/train and {name}/test, or all of them in {name}, inside the data folder"


def images(folder: Path, name: str, split: str) -> list[Path]:
    """The files of a split, in their order; ColdbenchError if there are none."""
    top = folder / name
    if not top.is_dir():
        raise NotThere(f"{top} does not exist: {PREFIX}{name} needs {NEEDS.format(name=name)}")
    if (top / "train").is_dir() and (top / "test").is_dir():
        found = list_images(top / split)
    else:
        every = list_images(top)
        found = [path for index, path in enumerate(every) if (index % EVERY == EVERY - 1) == (split == "test")]
    if not found:
        raise ColdbenchError(f"{top} holds no {split} images: needed are {NEEDS.format(name=name)}")
    return found


def build(folder: Path, name: str, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
    """The images of a split: each uint8 (3, size, size); ColdbenchError naming one that cannot be decoded."""
    for path in images(folder, name, split):
        yield read_image(path, size)
