"""Validation of configuration and files: one line that names the offending key and the nearest valid one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from coldbench.core.errors import ColdbenchError, unknown

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=150)]
"""A name that is also the name of a folder."""


class Strict(BaseModel):
    """Frozen, and an unknown key is an error.

    Numbers and flags may be text, because YAML reads 1e-3 as text and Snakemake's `--config` leaves text inside lists
    and mappings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _flag_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for numbers, because pydantic would read them as 1 and 0."""
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, bool) for each in values):
            annotation = cls.model_fields[info.field_name or ""].annotation
            if annotation is not bool:
                raise ValueError("a flag is not valid here")
        return value


Model = TypeVar("Model", bound=BaseModel)


def parse_text(value: Any) -> Any:
    """Convert numeric and boolean strings at any depth, for mappings whose schema is not known here."""
    if isinstance(value, Mapping):
        return {key: parse_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [parse_text(each) for each in value]
    if isinstance(value, str) and re.fullmatch(r"-?\d[\d.]*(e[-+]?\d+)?|true|false", value, re.IGNORECASE):
        with contextlib.suppress(ValueError):
            return json.loads(value.lower())
    return value


def checked(model: type[Model], value: Mapping[str, Any], where: str, part: str = "") -> Model:
    """`value` as a `model`; `part` is the key of `value` inside the thing that `where` names.

    ColdbenchError, one line with the key and the nearest valid one, if `value` does not fit.
    """
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
        reason = first["msg"].removeprefix("Value error, ")
        culprit = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r:.80}"
        raise ColdbenchError(f"{place}: {reason[0].lower()}{reason[1:]}{culprit}") from None


def _keys(model: Any, location: Iterable[int | str], prefix: str) -> list[str]:
    """The valid keys at `location` inside `model`, each with its path."""
    in_mapping = False  # the next part is a key of a mapping, not a field
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") and not in_mapping else None
        in_mapping = False
        if field is not None:
            model, in_mapping = field.annotation, get_origin(field.annotation) is dict
            arguments = getattr(model, "__args__", ())
            model = arguments[-1] if arguments else model
    parent = prefix.rpartition(".")[0]
    return [f"{parent}.{key}" if parent else key for key in getattr(model, "model_fields", {})]


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON, 16 characters."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers merged, later ones over earlier ones: mappings key by key, any other value as a whole."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def from_json(model: type[Model], text: str, what: str) -> Model:
    """The `model` in the JSON `text`; ColdbenchError naming `what` if the text is no JSON or does not fit."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ColdbenchError(f"{what} is not JSON: {error}") from error
    return checked(model, value, what)
