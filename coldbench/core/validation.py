"""Checking what comes from outside: one line that names the key and the nearest valid one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from coldbench.core.errors import ColdbenchError, unknown


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
