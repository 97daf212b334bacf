"""The files of `coldbench restore` and `degrade`: which image becomes which PNG file, and what that says of itself.

Text chunks in a PNG file state what it was made from, so that each file itself shows whether it is up to date. A file
without the text of a verb is never overwritten by it, because another program wrote the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, write_json
from coldbench.core.images import to_uint8, to_unit_interval
from coldbench.core.validation import fingerprint
from coldbench.data.image_io import SUFFIXES, list_images

KEYWORDS = {"settings", "source", "pixels"}
"""The keywords that every file has."""


@dataclass(frozen=True)
class Verb:
    """A verb that writes a folder of images: its name, its result file, and how the keywords of its texts begin."""

    name: str
    result: str
    prefix: str


RESTORE = Verb("restore", "restored.json", "coldbench-")
DEGRADE = Verb("degrade", "drawn.json", "coldbench-degraded-")


@dataclass(frozen=True)
class Item:
    """One image: its index among those of the source, its file, and its output's path below the output folder."""

    index: int
    path: Path
    output: str


def list_items(source: Path, out: Path) -> list[Item]:
    """The images of a run, in their order: the file `source`, or those in that folder and below it.

    ColdbenchError if there are none, or if an output would replace another one, its folder, or an image of the source.
    """
    if not source.exists():
        raise ColdbenchError(f"{source} does not exist: give an image or a folder of images")
    if out.exists() and not out.is_dir():
        raise ColdbenchError(f"{out} is not a folder")
    paths, top = [source], source.parent
    if source.is_dir():
        if out.resolve().is_relative_to(source.resolve()):
            raise ColdbenchError(f"{out} lies in {source}, the folder of the images: give a folder outside it")
        paths, top = list_images(source), source
    if not paths:
        raise ColdbenchError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    by_output: dict[str, Path] = {}
    for path in paths:
        output = str(path.relative_to(top).with_suffix(".png"))
        if output in by_output:
            raise ColdbenchError(f"{by_output[output]} and {path} would both become {out / output}: rename one of them")
        by_output[output] = path
    sources = {path.resolve() for path in paths}
    for output, path in by_output.items():
        if (out / output).resolve() in sources:
            raise ColdbenchError(f"{out / output} is an image of the source: give another folder")
        for folder in map(str, Path(output).parents):
            if folder in by_output:
                other = by_output[folder]
                raise ColdbenchError(f"{other} would become {out / folder}, the folder of {path}'s: rename one of them")
    return [Item(index, path, output) for index, (output, path) in enumerate(by_output.items())]


def refuse_foreign(out: Path, items: Sequence[Item], verb: Verb) -> None:
    """Raise ColdbenchError if something that `verb` did not write is in the way of the results in `out`."""
    advice = "move it or give another folder"
    written = {out / verb.result: is_result(out / verb.result)}
    written |= {out / item.output: _text(out / item.output, verb).keys() >= KEYWORDS for item in items}
    for path, by_verb in written.items():
        if os.path.lexists(path) and not by_verb:
            raise ColdbenchError(f"{path} exists and was not written by {verb.name}: {advice}")
        for folder in path.relative_to(out).parents:
            if os.path.lexists(out / folder) and not (out / folder).is_dir():
                raise ColdbenchError(f"{out / folder} is no folder, but {path} needs one: {advice}")


def prepare_folder(out: Path, verb: Verb) -> None:
    """Make the folder and remove its result file, because that would be wrong until all images are written.

    ColdbenchError if the folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / verb.result).unlink(missing_ok=True)
    except OSError as error:
        raise ColdbenchError(f"cannot write {out}: {error.strerror or error}") from error
    if not os.access(out, os.W_OK):
        raise ColdbenchError(f"cannot write {out}: Permission denied")


def to_pixels(x: Tensor, culprit: str) -> npt.NDArray[np.uint8]:
    """Images (N, C, H, W) in [-1, 1] as 8-bit pixels, clamped and rounded to nearest.

    ColdbenchError that begins with `culprit` if a value is not finite.
    """
    if not bool(x.isfinite().all()):
        raise ColdbenchError(f"{culprit} into NaN or infinity")
    pixels: npt.NDArray[np.uint8] = to_uint8(to_unit_interval(x)).cpu().numpy()
    return pixels


def write_png(path: Path, pixels: npt.NDArray[np.uint8], text: Mapping[str, str], verb: Verb) -> None:
    """Write pixels (C, H, W) of one or three channels as PNG with `text` and a hash of the pixels, atomically."""
    image = _image(pixels)
    chunks = PngInfo()
    for keyword, value in {**text, "pixels": _pixel_hash(image)}.items():
        chunks.add_text(verb.prefix + keyword, value)
    with atomic(path) as temporary:
        image.save(temporary, "PNG", pnginfo=chunks)


def is_up_to_date(path: Path, text: Mapping[str, str], verb: Verb, pixels: npt.NDArray[np.uint8] | None = None) -> bool:
    """Whether the PNG file exists, says `text` of itself, and has the pixels that were written.

    With `pixels` (C, H, W) it must have these.
    """
    stated = _text(path, verb)
    if pixels is not None:
        text = {**text, "pixels": _pixel_hash(_image(pixels))}
    if any(stated.get(keyword) != value for keyword, value in text.items()):
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return _pixel_hash(image) == stated.get("pixels")
    except Exception:  # a damaged file makes Pillow's parsers raise nearly anything
        return False


def write_result(out: Path, content: Mapping[str, Any], verb: Verb) -> None:
    """Write `content` and its fingerprint to the result file in `out`, atomically."""
    write_json(out / verb.result, {**content, "fingerprint": fingerprint(content)})


def is_result(path: Path) -> bool:
    """Whether `write_result` wrote the file and nothing has changed its content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return bool(content.pop("fingerprint") == fingerprint(content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _text(path: Path, verb: Verb) -> dict[str, str]:
    """The text that `verb` wrote into a PNG file, by keyword without prefix; nothing if it is missing or no PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            text = {key: str(value) for key, value in image.info.items() if isinstance(key, str)}
    except Exception:  # a damaged file makes Pillow's parsers raise nearly anything
        return {}
    return {key.removeprefix(verb.prefix): value for key, value in text.items() if key.startswith(verb.prefix)}


def _image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Pixels (C, H, W) of one or three channels as an image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _pixel_hash(image: Image.Image) -> str:
    """Hexadecimal SHA-256 of mode, size and pixels."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
