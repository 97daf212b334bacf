"""The degradations by name, and how one is built from its description in an experiment.

A degradation is a class as `base.Degradation` describes, registered by `@degradation("name")`. `coldbench check` holds
every one to the same laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from coldbench import data
from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Experiment
from coldbench.core.parameters import accepts
from coldbench.core.validation import check_plain
from coldbench.data.preprocessing import center_crop
from coldbench.degradations.base import Degradation

TYPES = {bool: "true or false", float: "a number", int: "a whole number", str: "a name"}


def kind_of(name: str, source: str | None = None) -> type[Degradation]:
    """The class of the degradation `name`; ColdbenchError if there is none, or if its code is another than `source`."""
    kind = plugins.load("degradation", name, source).object
    if not (isinstance(kind, type) and issubclass(kind, Degradation)):
        raise ColdbenchError(f"{plugins.find('degradation', name)}: {kind.__name__} is no subclass of Degradation")
    accepts(plugins.find("degradation", name), kind.degrade, "self", "x0", "t", "drawn")
    accepts(plugins.find("degradation", name), kind.draw, "self", "indices", "seed")
    return kind


DEGRADATIONS = {name: kind_of(name) for name in plugins.OWN["degradation"]}
"""The suite's own, by name."""


def build(spec: Mapping[str, Any], size: int, partners: npt.NDArray[np.uint8] | None = None) -> Degradation:
    """The degradation that `spec` describes ({name, T, …its parameters}) for size × size images.

    `partners` are the images, uint8 (M, C, size, size), of the data set that a degradation with a `partner` mixes in.
    Raises ColdbenchError for an unknown name or parameter, a missing parameter, and a value out of range.
    """
    check_plain(spec, "degradation")
    if not isinstance(spec, Mapping):
        raise ColdbenchError(f"degradation: must be its name and parameters, not {spec!r}")
    parameters = dict(spec)
    name, source = parameters.pop("name", None), parameters.pop("source", None)
    kind: Any = kind_of(name if isinstance(name, str) else str(name), source)
    choices = kind.__pydantic_fields__.keys() - {"size", "images"}
    if strange := parameters.keys() - choices:
        raise unknown(f"parameter of degradation {name}", min(strange, key=str), choices)
    parameters = {key: _as_tuple(value, kind.__pydantic_fields__[key]) for key, value in parameters.items()}
    if "partner" in choices:
        parameters["images"] = partners
    try:
        built: Degradation = kind(size=size, **parameters)
    except ValidationError as error:
        raise _in_one_line(error, str(name), kind.__pydantic_fields__) from None
    except TypeError as error:
        raise plugins.located(error) or ColdbenchError(f"degradation {name}: {error}") from error
    return built


def _as_tuple(value: Any, field: FieldInfo) -> Any:
    """YAML has lists alone, but parameters are tuples, which nothing can change."""
    return tuple(value) if isinstance(value, list) and get_origin(field.annotation) is tuple else value


def for_experiment(experiment: Experiment, partner: Path | None) -> Degradation:
    """The degradation of an experiment; `partner` is the prepared data set whose training images it mixes in."""
    return with_partner(experiment.degradation, experiment.size, partner)


def with_partner(spec: Mapping[str, Any], size: int, partner: Path | None) -> Degradation:
    """`build`, with the training images of the prepared data set `partner` as those that are mixed in."""
    images = center_crop(data.load(partner, "train"), size) if partner else None
    return build(spec, size, images)


def complete_spec(spec: Mapping[str, Any], degradation: Degradation) -> dict[str, Any]:
    """`spec` with every parameter of the `degradation` that was built from it, defaults included, as JSON holds them.

    Equal for two descriptions of one degradation. The size is no part of it.
    """
    fields = type(degradation).__pydantic_fields__.keys() - {"size", "images"}  # type: ignore[attr-defined]
    values = {key: getattr(degradation, key) for key in sorted(fields)}
    return {**spec, **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}}


def _in_one_line(error: ValidationError, name: str, fields: Mapping[str, FieldInfo]) -> ColdbenchError:
    """The first of pydantic's complaints about a degradation, with the parameter and its valid values."""
    first = error.errors()[0]
    key, value = str(first["loc"][0]) if first["loc"] else "", first["input"]
    if first["type"] == "missing":
        return ColdbenchError(f"degradation {name}: parameter '{key}' is missing")
    if first["type"] == "value_error":  # raised by __post_init__, which compares several parameters
        return ColdbenchError(f"degradation {name}: {first['ctx']['error']}")
    choices = get_args(fields[key].annotation) if get_origin(fields[key].annotation) is Literal else ()
    if isinstance(value, str) and str in map(type, choices):
        return unknown(f"{key} of degradation {name}", value, choices)
    return ColdbenchError(f"degradation {name}: {key} must be {_valid(fields[key], choices)}, not {value!r}")


def _valid(field: FieldInfo, choices: tuple[object, ...]) -> str:
    """The values that a parameter may have, in words."""
    if choices:
        return f"one of {', '.join(map(str, choices))}"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = {key: getattr(each, key) for each in field.metadata for key in signs if hasattr(each, key)}
    interval = f" in {limits['ge']:g}…{limits['le']:g}" if limits.keys() == {"ge", "le"} else ""
    if limits and not interval:
        interval = " " + " and ".join(f"{signs[key]} {limit:g}" for key, limit in limits.items())
    return TYPES.get(field.annotation, "of another type") + interval  # type: ignore[arg-type]
