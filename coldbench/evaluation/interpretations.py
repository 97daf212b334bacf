"""Readings of the paper: what `calibrate` scores, as data, checked before any work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from coldbench import data, degradations
from coldbench.core.errors import ColdbenchError
from coldbench.core.validation import Count, Strict, checked
from coldbench.degradations import Degradation
from coldbench.evaluation.metrics.ssim import Window

METRICS = {
    "paper": Window(),
    "per_image": Window(),
    "uniform": Window(weights="uniform", width=7, sample_covariance=True),
    "signed": Window(data_range=2.0),
    "range2": Window(data_range=2.0),
    "reflect": Window(padding="reflect"),
    "sample": Window(sample_covariance=True),
}
"""How a reading measures. per_image: the mean of the images' own RMSEs; signed: SSIM of images in [-1, 1]; range2: of
images in [0, 1] all the same; the others change the window of SSIM and nothing else."""


class Preparation(Strict):
    """What is done to a data set's images: 8-bit resize, then centre crop, zero padding or enlarging in floats."""

    resize: Count | None = None  # pixels; none: the row's size
    crop: Count | None = None
    pad: Annotated[int, Field(ge=0)] = 0
    stretch: Count | None = None  # bilinear, in floating point
    split: Literal["train", "test"] = "test"


class Reading(Strict):
    """One way to read the paper; everything it does not name is as in its row."""

    rationale: str
    degradation: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Preparation = Preparation()
    metric: Literal["paper", "per_image", "uniform", "signed", "range2", "reflect", "sample"] = "paper"
    steps_short: Annotated[int, Field(ge=0)] = 0  # severity T minus this
    fitted_after: bool = False  # chosen because it fits


class Row(Strict):
    """One row of the paper's tables and its readings, the recommended one first."""

    table: int
    row: str
    dataset: str
    size: Count = 32
    degradation: dict[str, Any]
    draws: Count = 1
    scored: Count | None = None  # images that the released script scores, where not the whole test set
    readings: dict[str, Reading]


class Copy(Strict):
    """A perturbed copy of a data set, and a part of it in both forms, from which the copy's error is estimated."""

    copied: str
    part: str
    part_copied: str


class Calibration(Strict):
    """The whole file of readings."""

    copies: dict[str, Copy] = Field(default_factory=dict)
    rows: dict[str, Row]


def load(text: str, what: str) -> Calibration:
    """The readings that `text` holds as YAML; ColdbenchError for whatever does not fit, before any work."""
    try:
        calibration = checked(Calibration, yaml.safe_load(text) or {}, what)
    except yaml.YAMLError as error:
        raise ColdbenchError(f"{what} is not YAML: {' '.join(str(error).split())}") from error
    check(calibration)
    return calibration


def check(calibration: Calibration) -> None:
    """Raise ColdbenchError for an unknown data set, degradation or parameter."""
    for name, row in calibration.rows.items():
        for source in sources(calibration, row):
            data.dataset(source)
        for reading, told in row.readings.items():
            try:
                built(row, told)
            except ColdbenchError as error:
                raise ColdbenchError(f"calibration {name}, {reading}: {error}") from None


def sources(calibration: Calibration, row: Row) -> list[str]:
    """The data sets that a row can be scored on: its own, and the stand-ins of `copies`."""
    copy = calibration.copies.get(row.dataset)
    return [row.dataset, *([copy.copied, copy.part, copy.part_copied] if copy else [])]


def built(row: Row, reading: Reading) -> Degradation:
    """The degradation of a reading, at the size that its preparation ends with; ColdbenchError if they do not fit."""
    prepared = reading.preprocessing
    side = prepared.resize or row.size
    if prepared.crop and prepared.crop > side:
        raise ColdbenchError(f"crop {prepared.crop} is more than the images have: {side} px")
    size = prepared.stretch or (prepared.crop or side) + 2 * prepared.pad
    if size < METRICS[reading.metric].width:
        raise ColdbenchError(f"SSIM needs images of {METRICS[reading.metric].width} px, not {size}")
    degradation = degradations.build({**row.degradation, **reading.degradation}, size)
    if reading.steps_short >= degradation.T:
        raise ColdbenchError(f"steps_short must lie in 0…{degradation.T - 1}, not {reading.steps_short}")
    return degradation
