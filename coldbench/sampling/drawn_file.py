"""What `coldbench degrade` drew for each image: the file drawn.json beside the degraded images.

Few numbers stand in the file. Many of them, such as the noise of an image, are made again from (seed, purpose, index
of the image). Where that is not possible, because the draw depends on the clean image, the file holds their bytes.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Spec
from coldbench.core.files import REPLACE, read_json
from coldbench.core.validation import Strict, checked, fingerprint
from coldbench.degradations import Degradation, Drawn
from coldbench.degradations.base import described

PURPOSE = "degrade"
"""Another one than that of restoration, whose own draws must not be the true ones by accident."""
MOST_NUMBERS = 16
"""The longest draw that stands in the file as numbers."""
Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class DrawnValue(Strict):
    """The type and shape of one thing that is drawn for an image."""

    dtype: Dtype
    shape: Annotated[list[PositiveInt], Field(max_length=8)]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class ImageDraw(Strict):
    """What was drawn for one image: each value as numbers, as bytes (zlib, base64), or made again from the seed."""

    file: str
    """The degraded image, from the folder of the file; also below any other folder of the same images."""
    index: NonNegativeInt
    """The image's index among those that were degraded."""
    source: Sha256
    """Of the file of the clean image."""
    sha256: Sha256
    """Of the file of the degraded image."""
    clamped: Annotated[float, Field(ge=0, le=1)]
    """The share of the image's values that lost more than rounding, because they left the range of an image."""
    excess: Annotated[float, Field(ge=0)]
    """The largest loss by that, in levels of 255."""
    numbers: dict[str, list[int | float]]
    """Values in full; a flag is 0 or 1."""
    encoded: dict[str, str]
    """Values as bytes, little-endian and row by row, compressed by zlib, in base64."""
    made_again: list[str]
    """Values that `draw` of the degradation makes again from `seed`, `purpose` and `index`."""


class DrawnFile(Strict):
    """The file drawn.json."""

    version: Literal[1]
    coldbench: str
    degradation: Spec
    """Name and every parameter."""
    size: PositiveInt
    channels: Literal[1, 3]
    severity: PositiveInt
    seed: NonNegativeInt
    purpose: str
    partner: str | None
    """The hash of the prepared data set that was mixed in."""
    resize: bool
    values: dict[str, DrawnValue]
    """What the degradation draws, by name."""
    images: list[ImageDraw]

    @model_validator(mode="after")
    def _every_image_has_every_value(self) -> DrawnFile:
        for image in self.images:
            names = [*image.numbers, *image.encoded, *image.made_again]
            if sorted(names) != sorted(self.values):
                raise ValueError(f"the values of {image.file} are {sorted(names)}, not {sorted(self.values)}")
            for name, numbers in image.numbers.items():
                if len(numbers) != (count := self.values[name].count):
                    raise ValueError(f"{name} of {image.file} has {len(numbers)} numbers, not {count}")
        return self

    def identity(self, image: ImageDraw) -> str:
        """The hash of everything that decides what was drawn for an image."""
        again = [self.seed, self.purpose, image.index] if image.made_again else []
        return fingerprint([image.numbers, image.encoded, image.made_again, again])

    def draw(self, image: ImageDraw, degradation: Degradation) -> Drawn:
        """What was drawn for an image, by name: tensors on the CPU without the axis of the images.

        ColdbenchError if a value cannot be decoded, or if `degradation` draws another shape or type.
        """
        values = {name: _tensor(numbers, self.values[name], name, image) for name, numbers in image.numbers.items()}
        values |= {name: _decoded(text, self.values[name], name, image) for name, text in image.encoded.items()}
        again = redrawn(degradation, image.index, self.seed, self.purpose) if image.made_again else {}
        for name in image.made_again:
            value, like = again.get(name), self.values[name]
            if value is None or (_dtype(value), list(value.shape)) != (like.dtype, like.shape):
                raise ColdbenchError(
                    f"{image.file}: {degradation.name} draws {described(value)} as {name}, not {like.dtype} "
                    f"{tuple(like.shape)}: another version drew it"
                )
            values[name] = value
        return {name: values[name] for name in self.values}


def redrawn(degradation: Degradation, index: int, seed: int, purpose: str) -> Drawn:
    """What the degradation draws for the image `index` without knowing it, without the axis of the images."""
    drawn = degradation.draw(torch.tensor([index]), rng.derive(seed, purpose))
    return {name: value[0] for name, value in drawn.items()}


def types_of(drawn: Drawn, name: str) -> dict[str, DrawnValue]:
    """Type and shape of each value, without the axis of the images; ColdbenchError if the file cannot hold one."""
    for key, value in drawn.items():
        if _dtype(value) not in get_args(Dtype):
            types = ", ".join(get_args(Dtype))
            raise ColdbenchError(f"degradation {name} draws {key} as {_dtype(value)}; a file of draws holds {types}")
    facts = {key: {"dtype": _dtype(value), "shape": list(value.shape)} for key, value in drawn.items()}
    return {key: DrawnValue.model_validate(each) for key, each in facts.items()}


def kept(drawn: Drawn, again: Drawn) -> dict[str, Any]:
    """The fields `numbers`, `encoded` and `made_again` of an image.

    `drawn` is its draw and `again` that of `redrawn`, both without the axis of the images.
    """
    fields: dict[str, Any] = {"numbers": {}, "encoded": {}, "made_again": []}
    for name, value in drawn.items():
        if value.numel() <= MOST_NUMBERS and bool(value.isfinite().all()):
            numbers = value.flatten().tolist()
            fields["numbers"][name] = [int(each) if isinstance(each, bool) else each for each in numbers]
        elif name in again and again[name].dtype == value.dtype and torch.equal(again[name], value):
            fields["made_again"].append(name)
        else:
            content = np.ascontiguousarray(value.cpu().numpy()).tobytes()
            fields["encoded"][name] = base64.b64encode(zlib.compress(content)).decode()
    return fields


def read_drawn(path: Path) -> DrawnFile:
    """The file at `path`; ColdbenchError if it cannot be read, is damaged or changed, or is of another version."""
    content = read_json(path)
    if not isinstance(content, dict) or "images" not in content or "fingerprint" not in content:
        raise ColdbenchError(f"{path} is no file that `coldbench degrade` wrote (drawn.json); {REPLACE}")
    stated = content.pop("fingerprint")
    if content.get("version") != 1:
        raise ColdbenchError(f"{path} has version {content.get('version')!r}; this coldbench reads version 1")
    if stated != fingerprint(content):
        raise ColdbenchError(f"{path} is damaged or was changed: its content does not match its fingerprint; {REPLACE}")
    return checked(DrawnFile, content, str(path))


def differences(file: DrawnFile, expected: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, value in the file and expected value of whatever differs; a parameter stands as `degradation.NAME`.

    `expected` has the fields of the file that must agree, with `degradation` complete.
    """
    found: list[tuple[str, Any, Any]] = []
    for key, value in expected.items():
        own = getattr(file, key)
        if key != "degradation":
            found += [(key, own, value)] * (own != value)
            continue
        names = ["name"] if own.get("name") != value["name"] else sorted(own.keys() | value.keys())
        found += [
            (f"{key}.{name}", own.get(name), value.get(name)) for name in names if own.get(name) != value.get(name)
        ]
    return found


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _tensor(numbers: list[int | float], value: DrawnValue, name: str, image: ImageDraw) -> Tensor:
    try:
        return torch.tensor(numbers, dtype=getattr(torch, value.dtype)).reshape(value.shape)
    except (ValueError, RuntimeError, OverflowError) as error:  # a number beyond the type
        raise ColdbenchError(f"{name} of {image.file} is no {value.dtype}: {error}") from error


def _decoded(text: str, value: DrawnValue, name: str, image: ImageDraw) -> Tensor:
    try:
        array = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=value.dtype)
        return torch.from_numpy(array.reshape(value.shape).copy())
    except (ValueError, zlib.error) as error:
        raise ColdbenchError(f"{name} of {image.file} cannot be decoded: {error}") from error
