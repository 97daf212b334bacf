"""Validation of configuration and files: one line that names the offending key and the nearest valid one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from coldbench.core.errors import ColdbenchError, unknown

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)]
"""A name that is part of the names of files, which may have 255 bytes."""
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=160)]
"""The name of a run: experiment, protocol and seed."""
DEEPEST, MOST_VALUES = 50, 50_000
LONGEST_KEY, LONGEST_TEXT, LONGEST_NUMBER = 200, 10_000, 128
"""Bounds of what a user writes: levels of nesting; values in all, of which the suite's own files have at most 3,000;
characters; bits of a whole number."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters except tab and line feed, and halves of characters, which no file can hold."""


class Strict(BaseModel):
    """Frozen, and an unknown key is an error.

    Numbers and flags may be text, because YAML reads 1e-3 as text and Snakemake's `--config` leaves text inside lists
    and mappings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

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


class UnknownKey(ValueError):
    """Raised by a validator of a model for a key that the model, which takes other keys, does not know."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not permitted")
        self.key = key


Model = TypeVar("Model", bound=BaseModel)


def check_plain(value: Any, what: str, keys: type | UnionType = str) -> None:
    """Raise ColdbenchError unless `value` is what JSON can hold: null, flags, numbers, text, lists and mappings.

    YAML also reads dates and bytes, and its aliases can make a value endless, or far larger than its file. `keys` are
    the types of the keys of mappings.
    """
    waiting, count = [(value, tuple[str, ...]())], 0
    while waiting:
        each, path = waiting.pop()
        count += 1
        fault = _fault(each) or (_key_fault(each, keys) if isinstance(each, Mapping) else "")
        if count > MOST_VALUES:
            path, fault = path[:2], f"more than {MOST_VALUES:,} values, each counted as often as an alias repeats it"
        elif len(path) > DEEPEST:
            path, fault = path[:2], f"more than {DEEPEST} levels of nesting"
        if fault:
            raise ColdbenchError(f"{': '.join(filter(None, [what, '.'.join(path)]))}: {fault}")
        children = each.items() if isinstance(each, Mapping) else enumerate(each) if isinstance(each, list) else ()
        waiting += reversed([(child, (*path, str(key))) for key, child in children])


def _fault(value: Any) -> str:
    """What is wrong with a value itself, without those inside it; empty if nothing is."""
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            return f"text of {len(value):,} characters, {LONGEST_TEXT:,} are allowed"
        return f"the text {value!r} holds a control character" if UNPRINTABLE.search(value) else ""
    if isinstance(value, int):
        return f"a whole number of more than {LONGEST_NUMBER} bits" if value.bit_length() > LONGEST_NUMBER else ""
    if value is None or isinstance(value, float | list | Mapping):
        return ""
    return f"a value of type {type(value).__name__} is not valid here; text needs quotes"


def _key_fault(mapping: Mapping[Any, Any], keys: type | UnionType) -> str:
    for key in mapping:
        if not isinstance(key, keys):
            short = isinstance(key, int | float | None) and not _fault(key)
            return f"the key {repr(key) if short else f'of type {type(key).__name__}'} is no text; put it in quotes"
        if fault := _fault(key):
            return fault
        if isinstance(key, str) and len(key) > LONGEST_KEY:
            return f"a key of {len(key):,} characters"
    return ""


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
        raise _in_one_line(error.errors()[0], model, where, part) from None


LAYER = {"layer": True}
"""The context of a validation by `check_layer`."""


def check_layer(model: type[BaseModel], value: Mapping[str, Any], where: str) -> None:
    """Raise ColdbenchError as `checked` does, but let `value` lack keys that other layers state."""
    try:
        model.model_validate(value, context=LAYER)
    except ValidationError as error:
        for each in error.errors():
            if each["type"] != "missing":
                raise _in_one_line(each, model, where) from None


def _in_one_line(error: Any, model: type[BaseModel], where: str, part: str = "") -> ColdbenchError:
    """One of pydantic's errors, with the path of the key and the nearest valid key."""
    keys = [str(key) for key in (*filter(None, [part]), *error["loc"]) if key != "[key]"]
    place = ": ".join(filter(None, [where, ".".join(keys)]))
    refused = error.get("ctx", {}).get("error")
    if isinstance(refused, UnknownKey):
        keys, error = [*keys, refused.key], {**error, "type": "extra_forbidden", "loc": (*error["loc"], refused.key)}
    if error["type"] == "extra_forbidden":
        parent = "".join(f"{key}." for key in keys[:-1])
        return unknown(f"key in {where}", keys[-1], _keys(model, error["loc"][:-1]), parent)
    if error["type"] == "missing":
        return ColdbenchError(f"{place} is missing")
    mapping = error["type"] in ("model_type", "dict_type")
    reason = "must be keys and values" if mapping else error["msg"].removeprefix("Value error, ")
    culprit = "" if isinstance(error["input"], Mapping) else f", not {error['input']!r}"
    return ColdbenchError(f"{place}: {reason[0].lower()}{reason[1:]}{culprit}")


def _keys(model: Any, location: Iterable[int | str]) -> list[str]:
    """The valid keys at `location` inside `model`."""
    in_mapping = False  # the next part is a key of a mapping, not a field
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") and not in_mapping else None
        in_mapping = False
        if field is not None:
            model, in_mapping = field.annotation, get_origin(field.annotation) is dict
            arguments = getattr(model, "__args__", ())
            model = arguments[-1] if arguments else model
    return list(getattr(model, "model_fields", {}))


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON, 16 characters."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers merged, later ones over earlier ones: mappings key by key, any other value as a whole.

    The result shares what it can with the layers, because a copy of aliases in YAML may be endless: change neither.
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def deciding(layers: Sequence[Mapping[str, Any]], path: Sequence[str]) -> int | None:
    """The number of the layer that decides the value at `path` of the layers `merged`; None if no layer does.

    It is the last one that states the path, or a value on the way to it that is no mapping.
    """
    for number in reversed(range(len(layers))):
        value: Any = layers[number]
        for key in path:
            if not isinstance(value, Mapping):
                return number
            if key not in value:
                break
            value = value[key]
        else:
            return number
    return None


def from_json(model: type[Model], text: str, what: str) -> Model:
    """The `model` in the JSON `text`; ColdbenchError naming `what` if the text is no JSON or does not fit."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ColdbenchError(f"{what} is not JSON: {error}") from error
    check_plain(value, what)
    return checked(model, value, what)
