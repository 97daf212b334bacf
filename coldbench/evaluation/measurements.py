"""The metrics of the scores table: from the per-image values and features of a sample to measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.parameters import accepts, arguments
from coldbench.core.sampling_settings import label_of
from coldbench.evaluation.metrics import intervals, kernel
from coldbench.evaluation.metrics.extractors import Extractor
from coldbench.evaluation.metrics.frechet import Features
from coldbench.evaluation.metrics.intervals import Estimate, Values
from coldbench.evaluation.metrics.reference import Reference
from coldbench.evaluation.metrics.similarity import mean_psnr, mean_rmse, pooled_rmse, pooled_ssim


@dataclass(frozen=True)
class Comparison:
    """A reference set of features. `paired` if the sample restores its images, in the same order."""

    split: str
    reference: Reference
    paired: bool

    @property
    def originals(self) -> Features | None:
        """The features of the originals of a paired sample, None if the reference is a fixed set."""
        return self.reference.features if self.paired else None

    def draws(self, extractor: Extractor) -> int:
        """The resamples of an interval: none if some features of the originals are not stored."""
        complete = len(self.reference.features) == self.reference.statistics.n
        return extractor.draws if complete or not self.paired else 0


@dataclass(frozen=True)
class Sample:
    """The images of one method in one set, as the metrics see them.

    `values` holds per-image values against the originals, float64 (N,): ssim and squared_error, with the suffix _signed
    for images in [-1, 1]; it is empty for generated images. `features` and `comparisons` go by the extractor's name.
    """

    set: str
    method: str
    values: dict[str, Values]
    features: dict[str, Features]
    comparisons: dict[str, list[Comparison]]

    def finite(self, extractor: Extractor) -> bool:
        """Whether all features are finite. A sampler that diverged has none that are."""
        return bool(np.isfinite(self.features[extractor.name]).all())


@dataclass(frozen=True)
class Measurement:
    """An estimate of one metric for one method, or for the difference of two, on one set.

    `direction` says which values are better: higher or lower.
    """

    set: str
    method: str
    metric: str
    reference: str
    estimate: Estimate
    direction: str = "lower"


class Metric(Protocol):
    """What the evaluator asks of a metric."""

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        """The measurements of one sample."""

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        """The measurements of a minus b, two samples of the same images in the same order."""


def difference_name(a: Sample, b: Sample) -> str:
    """The method of a difference."""
    return f"{a.method}-{b.method}"


SIMILARITIES: dict[str, tuple[str, Callable[[Values, int], Estimate], str]] = {
    "ssim": ("ssim", pooled_ssim, "higher"),
    "rmse": ("squared_error", pooled_rmse, "lower"),
    "psnr": ("squared_error", mean_psnr, "higher"),
    "rmse_per_image": ("squared_error", mean_rmse, "lower"),
    "ssim_signed": ("ssim_signed", pooled_ssim, "higher"),
    "rmse_signed": ("squared_error_signed", pooled_rmse, "lower"),
}
"""The per-image values of each metric, how they are averaged, and which are better."""


@dataclass(frozen=True)
class Similarity:
    """SSIM, RMSE and PSNR against the originals."""

    seed: int

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        for metric, (values, average, direction) in SIMILARITIES.items():
            if values in sample.values:
                estimate = average(sample.values[values], self.seed)
                yield Measurement(sample.set, sample.method, metric, "", estimate, direction)

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        for metric, values, statistic in (("ssim", "ssim", "mean"), ("rmse", "squared_error", "root_mean")):
            if values in a.values:
                estimate = intervals.difference(a.values[values], b.values[values], statistic, self.seed)
                yield Measurement(a.set, difference_name(a, b), metric, "", estimate, SIMILARITIES[metric][2])


@dataclass(frozen=True)
class PerImage:
    """A plug-in's metric: a function of the originals and the images, both float32 (N, C, H, W) in [0, 1], to (N,).

    The images are not clamped. `label` names it in the scores. `average` is that of the values over images: mean, or
    root_mean, the root of the mean. `best` is the value of equal images, if the metric has one; `symmetric` says that
    originals and images can change places. `coldbench check` tests both.
    """

    label: str
    function: Callable[[Tensor, Tensor], Tensor]
    seed: int = 0
    higher_is_better: bool = False
    average: str = "mean"
    best: float | None = None
    symmetric: bool = True

    @property
    def direction(self) -> str:
        """Which values are better."""
        return "higher" if self.higher_is_better else "lower"

    def __call__(self, originals: Tensor, images: Tensor) -> Values:
        """The value of each pair, float64 (N,); ColdbenchError if the function returns something else."""
        values = self.function(originals, images)
        if not isinstance(values, Tensor) or values.shape != (len(images),):
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ColdbenchError(
                f"metric {self.label} must give one value for each of {len(images)} images, not {shape}"
            )
        return values.detach().double().cpu().numpy()

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        if self.label in sample.values:
            pooled = intervals.mean(sample.values[self.label], self.seed)
            bounds = np.array([pooled.value, pooled.low, pooled.high])
            value, low, high = intervals.STATISTICS[self.average](bounds).tolist()
            estimate = Estimate(value, low, high, pooled.n)
            yield Measurement(sample.set, sample.method, self.label, "", estimate, self.direction)

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        if self.label in a.values:
            estimate = intervals.difference(a.values[self.label], b.values[self.label], self.average, self.seed)
            yield Measurement(a.set, difference_name(a, b), self.label, "", estimate, self.direction)


def per_image(spec: Mapping[str, Any], seed: int = 0) -> PerImage:
    """The metric with a name and parameters; ColdbenchError if there is none, or a parameter or option is wrong."""
    parameters = dict(spec)
    name, source = str(parameters.pop("name")), parameters.pop("source", None)
    registered = plugins.load("metric", name, source)
    component, options = plugins.find("metric", name), registered.options
    choices = {"higher_is_better", "average", "best", "symmetric"}
    if strange := options.keys() - choices:
        raise unknown(f"option of metric {name} ({component})", min(strange), choices)
    if options.get("average", "mean") not in intervals.STATISTICS:
        raise unknown(f"average of metric {name} ({component})", options["average"], intervals.STATISTICS)
    for key, kinds in (("higher_is_better", bool), ("symmetric", bool), ("best", float | int | None)):
        if key in options and (not isinstance(options[key], kinds) or (key == "best" and options[key] is True)):
            raise ColdbenchError(f"{component}: option {key} of metric {name} is {options[key]!r}")
    if isinstance(registered.object, type):
        raise ColdbenchError(f"{component}: {registered.object.__name__} is a class; a metric is a function")
    accepts(component, registered.object, "originals", "images")
    values = arguments(registered.object, parameters, f"metric {name}")
    function = partial(registered.object, **values) if values else registered.object
    return PerImage(label_of({"name": name, **parameters}), function, seed, **options)


@dataclass(frozen=True)
class FrechetDistance:
    """The Fréchet distance to each reference set, NaN if features are not finite."""

    extractor: Extractor
    seed: int

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        name, features = self.extractor.name, sample.features[self.extractor.name]
        for comparison in sample.comparisons[name]:
            estimate = Estimate(math.nan, math.nan, math.nan, len(features))
            if sample.finite(self.extractor):
                draws, statistics = comparison.draws(self.extractor), comparison.reference.statistics
                estimate = intervals.frechet(features, statistics, self.seed, draws, comparison.originals)
            yield Measurement(sample.set, sample.method, name, comparison.split, estimate)

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        name = self.extractor.name
        if not (a.finite(self.extractor) and b.finite(self.extractor)):
            return
        for comparison in a.comparisons[name]:
            draws, statistics = comparison.draws(self.extractor), comparison.reference.statistics
            estimate = intervals.frechet_difference(
                a.features[name], b.features[name], statistics, self.seed, draws, comparison.originals
            )
            yield Measurement(a.set, difference_name(a, b), name, comparison.split, estimate)


@dataclass(frozen=True)
class KernelDistance:
    """The kernel distance to each reference set, NaN if features are not finite. It has no paired difference."""

    extractor: Extractor
    seed: int

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        features = sample.features[self.extractor.name]
        for comparison in sample.comparisons[self.extractor.name]:
            estimate = Estimate(math.nan, math.nan, math.nan, len(features))
            if sample.finite(self.extractor):
                estimate = kernel.kernel_distance(features, comparison.reference.features, self.seed)
            yield Measurement(sample.set, sample.method, self.extractor.kernel, comparison.split, estimate)

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        yield from ()
