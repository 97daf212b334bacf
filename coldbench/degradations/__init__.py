"""D(x, t): the registry of degradations by name.

To add one, write a frozen dataclass that fulfils `base.Degradation` in a file of its own and enter it here; the tests
of the laws (`tests/degradations/test_degradations.py`) then cover it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldbench import data
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Experiment
from coldbench.data.preprocessing import middle
from coldbench.degradations.base import Degradation, Drawn, initial_xt, network_input
from coldbench.degradations.blur import Blur
from coldbench.degradations.decolorization import Decolorization
from coldbench.degradations.inpainting import Inpainting, InpaintingGeneration
from coldbench.degradations.mixing import Animorphosis, Noise
from coldbench.degradations.snow import Snow
from coldbench.degradations.superresolution import SuperResolution

DEGRADATIONS: dict[str, type[Degradation]] = {
    "animorphosis": Animorphosis,
    "blur": Blur,
    "decolorization": Decolorization,
    "inpainting": Inpainting,
    "inpainting_generation": InpaintingGeneration,
    "noise": Noise,
    "snow": Snow,
    "superresolution": SuperResolution,
}

__all__ = [
    "DEGRADATIONS",
    "Degradation",
    "Drawn",
    "InpaintingGeneration",
    "build",
    "degradation_of",
    "initial_xt",
    "network_input",
]


def build(spec: Mapping[str, Any], size: int, partners: npt.NDArray[np.uint8] | None = None) -> Degradation:
    """The degradation that `spec` describes ({name, T, …its parameters}) for size × size images.

    `partners` are the images, uint8 (M, C, size, size), of the data set that a degradation with a `partner` mixes in.
    Raises ColdbenchError naming an unknown degradation or parameter, a value out of range, or a size that does not fit.
    """
    parameters = dict(spec)
    name = parameters.pop("name", None)
    if not isinstance(name, str) or name not in DEGRADATIONS:
        raise unknown("degradation", name, DEGRADATIONS)
    kind: Any = DEGRADATIONS[name]
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in ("size", "images")}
    for key in parameters:
        if key not in fields:
            raise unknown(f"parameter of degradation {name}", key, fields)
    for key, field in fields.items():
        if key not in parameters and field.default is dataclasses.MISSING:
            raise ColdbenchError(f"degradation {name}: parameter '{key}' is missing")
    if "partner" in fields:
        parameters["images"] = partners
    built: Degradation = kind(size=size, **parameters)
    return built


def degradation_of(experiment: Experiment, partner: Path | None) -> Degradation:
    """An experiment's degradation; `partner` is the prepared data set whose training images it mixes in, if it does."""
    others = middle(data.load(partner, "train"), experiment.size) if partner else None
    return build(experiment.degradation, experiment.size, others)
