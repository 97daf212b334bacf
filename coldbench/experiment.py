"""What one trained model is: data set × degradation × network × training, under a protocol and a budget.

The classes here are both the schema of the configuration and the values that the rest of the package works with. They
know no torch and no paths. A mistake ends in one line that names the key and the nearest valid one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from coldbench.errors import ColdbenchError, unknown

SCIENCE_VERSION = 1
"""Part of every fingerprint. Raise it when a change of code makes a trained model a different one."""


def plain(value: Any) -> Any:
    """What a text means that is a number or a flag: YAML reads 1e-3 as text, and Snakemake's --config leaves as text
    whatever stands in lists and mappings."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, str) and re.fullmatch(r"-?\d[\d.]*(e[-+]?\d+)?|true|false", value, re.IGNORECASE):
        with contextlib.suppress(ValueError):
            return json.loads(value.lower())
    return value


Plain = BeforeValidator(plain)  # after the limits: before them it would hide them from the JSON schema
Count = Annotated[int, Field(ge=1), Plain]
Natural = Annotated[int, Field(ge=0), Plain]
Flag = Annotated[bool, Plain]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]  # names become folders
Share = Annotated[float, Field(ge=0, lt=1), Plain]


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Network(Strict):
    """The restoration network R; its size is the paper's unless a budget makes it smaller.

    `dropout` and `attention` (the side at which it attends) are those of unet_ddpm, `residual` is unet_convnext's.
    """

    name: str = "unet_convnext"
    dim: Annotated[int, Field(ge=8, multiple_of=2), Plain] = 64
    dim_mults: Annotated[list[Count], Field(min_length=2)] = [1, 2, 4, 8]
    dropout: Annotated[float, Field(ge=0, lt=1), Plain] = 0.0
    attention: Count = 16
    time: Flag = True
    residual: Flag = False


class Pipeline(Strict):
    """From the data set to the network (protocol 1.3): what is done beyond an 8-bit resize to the experiment's size.

    In training a random window is cut from the images, enlarged to `resize` pixels or with a black border of `pad`, and
    with `flip` mirrored half of the time; in testing the middle of the (enlarged) images is taken.
    """

    resize: Count | None = None
    pad: Natural = 0
    flip: Flag = False


class Training(Strict):
    """The training loop of appendix A: L1 loss, Adam, exponential moving average of the weights."""

    updates: Count = 700_000
    total_batch: Count = 64  # images per update: the paper's 32 × 2
    accumulation: Count = 2
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    learning_rate: Annotated[float, Field(gt=0, lt=1), Plain] = 2e-5
    loss: Literal["l1", "l2"] = "l1"
    ema_decay: Share = 0.995
    ema_every: Count = 10
    ema_start: Natural = 2000  # before this update the average is a copy of the weights

    @model_validator(mode="after")
    def _batch_divides(self) -> Training:
        if self.total_batch % self.accumulation:
            raise ValueError(f"total_batch {self.total_batch} is not a multiple of accumulation {self.accumulation}")
        if self.ema_every > self.updates:
            raise ValueError(f"ema_every {self.ema_every} is more than updates {self.updates}: no average is taken")
        return self

    @property
    def micro_batch(self) -> int:
        """Images in one forward pass."""
        return self.total_batch // self.accumulation


class Experiment(Strict):
    """One model under one protocol and budget, completely resolved: what decides its weights, and its names."""

    name: str
    protocol: str
    budget: str
    dataset: str
    size: Count
    seed: int
    degradation: Annotated[dict[str, Any], Plain]
    images: Pipeline = Pipeline()
    network: Network
    training: Training

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Experiment:
        if self.prepared_size < self.size:
            raise ValueError(f"images.resize {self.images.resize} is less than size {self.size}")
        return self

    @property
    def prepared_size(self) -> int:
        """The side in pixels at which the data set is prepared."""
        return self.images.resize or self.size

    @property
    def partner(self) -> str | None:
        """The data set whose images the degradation mixes in, if it does."""
        return self.degradation.get("partner")

    @property
    def run(self) -> str:
        """The name of this run's folder: experiment and protocol, and the seed if it is not 0."""
        return f"{self.name}-{self.protocol}" + (f"-s{self.seed}" if self.seed else "")

    @property
    def science(self) -> dict[str, Any]:
        """Everything that decides the weights, and nothing else."""
        return {"science_version": SCIENCE_VERSION, **self.model_dump(exclude={"name", "protocol", "budget"})}

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of `science`, 16 characters: equal for two experiments that train the same model."""
        return fingerprint(self.science)


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], value: Mapping[str, Any], where: str, part: str = "") -> Model:
    """`value` as a `model`; ColdbenchError, one line with the key and the nearest valid one, if it does not fit."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(key) for key in (*filter(None, [part]), *first["loc"]) if key != "[key]")
        place = f"{where}: {path}" if path else where
        if first["type"] == "extra_forbidden":
            raise unknown(f"key in {where}", path, _keys(model, first["loc"][:-1], prefix=path)) from None
        if first["type"] == "missing":
            raise ColdbenchError(f"{place} is missing") from None
        told = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r}"
        raise ColdbenchError(f"{place}: {told[0].lower()}{told[1:]}{given}") from None


def _keys(model: Any, location: Iterable[int | str], prefix: str) -> list[str]:
    """The valid keys at `location` inside `model`, written with the path that leads to them."""
    named = False  # the part is a name in a mapping, not a field
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") and not named else None
        named = False
        if field is not None:
            model, named = field.annotation, get_origin(field.annotation) is dict
            arguments = getattr(model, "__args__", ())
            model = arguments[-1] if arguments else model
    start = prefix.rpartition(".")[0]
    return [f"{start}.{key}" if start else key for key in getattr(model, "model_fields", {})]


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON, 16 characters."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers on top of each other: mappings merge key by key, anything else replaces."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def from_json(model: type[Model], text: str, what: str) -> Model:
    """The `model` that `text` holds as JSON; ColdbenchError if it does not."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ColdbenchError(f"{what} is not JSON: {error}") from error
    return checked(model, value, what)
