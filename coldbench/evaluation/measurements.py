"""The metrics of the scores table: from the per-image values and features of a sample to measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coldbench.evaluation.metrics import intervals, kernel
from coldbench.evaluation.metrics.extractors import Extractor
from coldbench.evaluation.metrics.frechet import Features
from coldbench.evaluation.metrics.intervals import Estimate, Values
from coldbench.evaluation.metrics.reference import Reference
from coldbench.evaluation.metrics.similarity import mean_rmse, pooled_rmse, pooled_ssim


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
    """An estimate of one metric for one method, or for the difference of two, on one set."""

    set: str
    method: str
    metric: str
    reference: str
    estimate: Estimate


class Metric(Protocol):
    """What the evaluator asks of a metric."""

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        """The measurements of one sample."""

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        """The measurements of a minus b, two samples of the same images in the same order."""


def difference_name(a: Sample, b: Sample) -> str:
    """The method of a difference."""
    return f"{a.method}-{b.method}"


SIMILARITIES: dict[str, tuple[str, Callable[[Values, int], Estimate]]] = {
    "ssim": ("ssim", pooled_ssim),
    "rmse": ("squared_error", pooled_rmse),
    "rmse_per_image": ("squared_error", mean_rmse),
    "ssim_signed": ("ssim_signed", pooled_ssim),
    "rmse_signed": ("squared_error_signed", pooled_rmse),
}
"""The per-image values of each metric, and how they are averaged."""


@dataclass(frozen=True)
class Similarity:
    """SSIM and RMSE against the originals."""

    seed: int

    def measure(self, sample: Sample) -> Iterator[Measurement]:
        for metric, (values, average) in SIMILARITIES.items():
            if values in sample.values:
                estimate = average(sample.values[values], self.seed)
                yield Measurement(sample.set, sample.method, metric, "", estimate)

    def difference(self, a: Sample, b: Sample) -> Iterator[Measurement]:
        for metric, values, statistic in (("ssim", "ssim", "mean"), ("rmse", "squared_error", "root_mean")):
            if values in a.values:
                estimate = intervals.difference(a.values[values], b.values[values], statistic, self.seed)
                yield Measurement(a.set, difference_name(a, b), metric, "", estimate)


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
