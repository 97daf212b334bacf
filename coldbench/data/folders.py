"""Folders of photographs: CelebA-HQ, CelebA, AFHQ, and any folder of images under the name `folder-NAME`.

No checksum is published for them. What is checked is the number of images, and that each can be decoded; the hash of
the prepared arrays distinguishes two copies.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldbench.core.errors import WITH_REQUIREMENTS, ColdbenchError, MissingFile
from coldbench.core.logs import log
from coldbench.data.image_io import SUFFIXES, describe, read_image, scan, shown

PREFIX = "folder-"
LONGEST_NAME = 180
"""Bytes of NAME in folder-NAME, so that names of results made of it stay below the 255 of file systems."""
TEST_EVERY = 10
"""Without folders train and test, each tenth image of a folder is a test image."""

# The paper trained on 90 % of a directory listing in the order of its file system, which nobody can recover. The split
# by sorted name is frozen: another one would mix the training and test images of earlier models.
CELEBA_HQ_COUNTS = {"train": 27000, "test": 3000}
CELEBA_HQ_PLACES = ("CelebA-HQ/images-128", "CelebA-HQ/images")  # the released scripts read the first
CELEBA_COUNTS = {"train": 162770, "test": 19962}  # of 202599 images; the validation split is not used
CELEBA_SPLITS = {"train": "0", "test": "2"}  # as the official partition numbers them
CELEBA_IMAGES = "celeba/img_align_celeba"
CELEBA_PARTITION = "celeba/list_eval_partition.txt"
AFHQ_COUNTS = {"train": 14630, "test": 1500}  # the original release; version 2 has 14336 and 1467
AFHQ_PLACES = {"train": "AFHQ/afhq/train", "test": "AFHQ/afhq/val"}
AFHQ_CLASSES = ("cat", "dog", "wild")

Splits = dict[str, list[str]]
"""The files of each split, in order: their paths relative to the data folder, as text because that is faster."""
Passed = Counter[str]


@dataclass(frozen=True)
class Source:
    """A data set of image files.

    `find(folder)` lists the files of each split, in order, and counts what was passed over. It raises MissingFile if a
    folder is missing and ColdbenchError if the number of images is wrong. `lists` are files that say which image is in
    which split.
    """

    find: Callable[[Path], tuple[Splits, Passed]]
    requirements: str
    lists: tuple[str, ...] = ()

    def build(self, folder: Path, size: int, split: str) -> Iterator[NDArray[np.uint8]]:
        """The images of `split`: each uint8 (3, size, size). ColdbenchError naming a file that cannot be decoded."""
        for name in self.find(folder)[0][split]:
            yield read_image(folder / name, size)

    def check(self, folder: Path) -> None:
        """Raise MissingFile or ColdbenchError unless both splits have their number of images. No image is decoded."""
        self.find(folder)

    def count(self, folder: Path) -> dict[str, int]:
        """The number of images of each split."""
        return {split: len(names) for split, names in self.find(folder)[0].items()}

    def files(self, folder: Path) -> Splits:
        """The files that are read, in order, by what they are read for."""
        return {"lists": [*self.lists], **self.find(folder)[0]}

    def report(self, folder: Path) -> None:
        """Log in one line which files are no images of the data set."""
        if passed := self.find(folder)[1]:
            log.info("passed over in %s: %s (images are %s)", shown(folder), describe(passed), " ".join(SUFFIXES))


def _celeba_hq(folder: Path) -> tuple[Splits, Passed]:
    places = [folder / place for place in CELEBA_HQ_PLACES]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        raise _missing(folder, places[0], "CelebA-HQ", CELEBA_HQ.requirements)
    names, passed = scan(place)
    images = [f"{place.relative_to(folder)}/{name}" for name in names]
    _check_count(folder, len(images), sum(CELEBA_HQ_COUNTS.values()), place, CELEBA_HQ.requirements)
    train = CELEBA_HQ_COUNTS["train"]
    return {"train": images[:train], "test": images[train:]}, passed


def _celeba(folder: Path) -> tuple[Splits, Passed]:
    partition, place = folder / CELEBA_PARTITION, folder / CELEBA_IMAGES
    try:
        lines = [line.split() for line in partition.read_text(encoding="utf-8").splitlines() if line.strip()]
        present = {path.name for path in place.iterdir()}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(folder, Path(error.filename), "CelebA", CELEBA.requirements) from None
    except OSError as error:
        raise ColdbenchError(f"{shown(error.filename)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ColdbenchError(f"{shown(partition)} is not the official partition: it is no text in UTF-8") from error
    for count, line in enumerate(lines, 1):
        if len(line) != 2 or line[1] not in ("0", "1", "2") or not re.fullmatch(r"[\w-]+\.\w+", line[0]):
            raise ColdbenchError(
                f"{shown(partition)} is not the official partition: line {count} must be a file name and 0, 1 or 2"
            )
    if len({name for name, _ in lines}) < len(lines):
        raise ColdbenchError(f"{shown(partition)} is not the official partition: it names an image twice")
    splits: Splits = {}
    for split, its_number in CELEBA_SPLITS.items():
        names = [name for name, number in lines if number == its_number]
        _check_count(folder, len(names), CELEBA_COUNTS[split], partition, CELEBA.requirements)
        if absent := [name for name in names if name not in present]:
            raise ColdbenchError(
                f"{shown(place)} lacks {len(absent)} of {len(names)} {split} images ({absent[0]}); "
                f"needed: {_advice(folder, place, CELEBA.requirements)}"
            )
        splits[split] = [f"{CELEBA_IMAGES}/{name}" for name in names]
    return splits, Counter()


def _afhq(folder: Path) -> tuple[Splits, Passed]:
    splits: Splits = {}
    passed: Passed = Counter()
    for split, top in AFHQ_PLACES.items():
        splits[split] = []
        for place in (f"{top}/{kind}" for kind in AFHQ_CLASSES):
            if not (folder / place).is_dir():
                raise _missing(folder, folder / place, "AFHQ", AFHQ.requirements)
            names, more = scan(folder / place)
            splits[split] += [f"{place}/{name}" for name in names]
            passed += more
        _check_count(folder, len(splits[split]), AFHQ_COUNTS[split], folder / top, AFHQ.requirements)
    return splits, passed


def _check_count(folder: Path, found: int, count: int, place: Path, requirements: str) -> None:
    if found != count:
        advice = _advice(folder, place, requirements)
        message = f"{shown(place)} holds {found} images, should be {count}; needed: {advice}"
        raise ColdbenchError(message, WITH_REQUIREMENTS)


def _missing(folder: Path, place: Path, title: str, requirements: str) -> MissingFile:
    return MissingFile(f"{shown(place)} does not exist: {title} needs {_advice(folder, place, requirements)}")


def _advice(folder: Path, place: Path, requirements: str) -> str:
    """What is needed, or what to move if unpacking put a folder on the way to `place` into another one of its name."""
    for outer in reversed([place, *place.parents][: len(place.relative_to(folder).parts)]):
        if (outer / outer.name).is_dir():
            inner = outer.relative_to(folder)
            return f"what {inner / inner.name} holds moved to {inner} inside the data folder"
    return requirements


CELEBA_HQ = Source(
    _celeba_hq,
    "the 30000 images of CelebA-HQ in CelebA-HQ/images-128 or CelebA-HQ/images inside the data folder "
    "(github.com/tkarras/progressive_growing_of_gans)",
)
CELEBA = Source(
    _celeba,
    "celeba/img_align_celeba and celeba/list_eval_partition.txt inside the data folder "
    "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html)",
    lists=(CELEBA_PARTITION,),
)
AFHQ = Source(
    _afhq,
    "the original AFHQ: 14630 images in AFHQ/afhq/train and 1500 in AFHQ/afhq/val, each in cat, dog and wild "
    "inside the data folder (github.com/clovaai/stargan-v2)",
)


def image_folder(name: str) -> Source:
    """The folder `name` inside the data folder as a data set of RGB images.

    Its folders train and test are the splits; without them each tenth image in natural order is a test image.
    ColdbenchError if `name` is not the name of a folder.
    """
    if reason := _fault(name):
        raise ColdbenchError(f"data set '{shown(PREFIX + name)}' {reason}: give {PREFIX} and the name of a folder")
    requirements = (
        f"images in {shown(name)}/train and {shown(name)}/test, or 10 or more in {shown(name)}, inside the data folder"
    )

    def find(folder: Path) -> tuple[Splits, Passed]:
        top = folder / name
        if not top.is_dir():
            raise MissingFile(f"{shown(top)} does not exist: {shown(PREFIX + name)} needs {requirements}")
        names, passed = scan(top)
        splits: Splits = {"train": [], "test": []}
        own = all((top / split).is_dir() for split in splits)
        for index, image in enumerate(names):
            split = image.split("/")[0] if own else "test" if index % TEST_EVERY == TEST_EVERY - 1 else "train"
            if own and (split not in splits or "/" not in image):
                passed["images outside train and test"] += 1
            else:
                splits[split].append(f"{name}/{image}")
        for split, images in splits.items():
            if not images:
                raise ColdbenchError(
                    f"{shown(top)} holds no {split} images among {len(names)}; needed: {requirements}"
                    + (f"; passed over: {describe(passed)}" if passed else "")
                )
        return splits, passed

    return Source(find, requirements)


def _fault(name: str) -> str:
    """Why `name` cannot be that of a folder inside the data folder and of results made of it, or nothing."""
    if "/" in name or name in (".", ".."):
        return "is a path"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "has control characters or bytes that are no text"
    if set("{}") & set(name):
        return "has braces, in which Snakemake sees wildcards"
    if len(name.encode()) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    endless = re.search(r"(.+?)\1{19}$", name)
    return "repeats its end 20 times, which Snakemake takes for an endless loop" if endless else ""
