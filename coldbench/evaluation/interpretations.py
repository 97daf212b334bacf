"""The interpretations of the paper that `calibrate` scores: data, checked before any work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from coldbench import data, degradations
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import parse_yaml
from coldbench.core.validation import Strict, checked
from coldbench.degradations import Degradation
from coldbench.evaluation.metrics.ssim import Window

Metric = Literal["paper", "per_image", "uniform", "signed", "range2", "reflect", "sample"]
METRICS: dict[Metric, Window] = {
    "paper": Window(),
    "per_image": Window(),
    "uniform": Window(weights="uniform", width=7, sample_covariance=True),
    "signed": Window(data_range=2.0),
    "range2": Window(data_range=2.0),
    "reflect": Window(padding="reflect"),
    "sample": Window(sample_covariance=True),
}
"""The window of SSIM by the name of the metric.

`per_image` also averages the RMSE of each image. `signed` takes SSIM of images in [-1, 1], `range2` of images in
[0, 1]. The others change the window alone.
"""


class Preprocessing(Strict):
    """An 8-bit resize of a data set's images, then a centre crop, zero padding or a resize in floating point."""

    resize: PositiveInt | None = None  # pixels; default: the size of the row
    crop: PositiveInt | None = None
    pad: Annotated[int, Field(ge=0)] = 0
    stretch: PositiveInt | None = None  # bilinear, in floating point
    split: Literal["train", "test"] = "test"


class Interpretation(Strict):
    """One interpretation of the paper; a key it does not name is as in its row."""

    rationale: str
    degradation: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()
    metric: Metric = "paper"
    steps_short: Annotated[int, Field(ge=0)] = 0  # the severity is T minus this
    fitted_after: bool = False  # chosen because it fits


class Row(Strict):
    """One row of the paper's tables and its interpretations, the recommended one first."""

    table: int
    row: str
    dataset: str
    size: PositiveInt = 32
    degradation: dict[str, Any]
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    scored: PositiveInt | None = None  # images that the released script scores; default: the whole test set
    interpretations: dict[str, Interpretation]


class Calibration(Strict):
    """The rows of a calibration file by name."""

    rows: dict[str, Row]


def load(text: str, what: str) -> Calibration:
    """The calibration that `text` holds as YAML.

    ColdbenchError for text that is not YAML, an unknown key, data set or degradation, or a parameter out of range.
    """
    calibration = checked(Calibration, parse_yaml(text, what) or {}, what)
    for name, row in calibration.rows.items():
        data.dataset(row.dataset)
        for label, interpretation in row.interpretations.items():
            try:
                build_degradation(row, interpretation)
            except ColdbenchError as error:
                raise ColdbenchError(f"calibration {name}, {label}: {error}") from None
    return calibration


def build_degradation(row: Row, interpretation: Interpretation) -> Degradation:
    """The degradation of an interpretation at the size of its preprocessed images.

    ColdbenchError if degradation, metric or severity do not fit the images.
    """
    steps = interpretation.preprocessing
    side = steps.resize or row.size
    if not data.SMALLEST <= side <= data.LARGEST:
        raise ColdbenchError(f"size {side} is out of range: {data.SMALLEST} to {data.LARGEST} pixels")
    if steps.crop and steps.crop > side:
        raise ColdbenchError(f"crop {steps.crop} is larger than the images of {side} px")
    size = steps.stretch or (steps.crop or side) + 2 * steps.pad
    if size < METRICS[interpretation.metric].width:
        raise ColdbenchError(f"SSIM needs images of {METRICS[interpretation.metric].width} px, not {size}")
    degradation = degradations.build({**row.degradation, **interpretation.degradation}, size)
    if interpretation.steps_short >= degradation.T:
        raise ColdbenchError(f"steps_short must be in 0…{degradation.T - 1}, not {interpretation.steps_short}")
    return degradation
