"""95 % intervals by resampling images (Efron, 1979): of a mean, a paired difference and Fréchet distances.

The seed fixes the rows that are drawn, so that an interval comes out again. An interval describes the choice of the
scored images, not the spread between trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.evaluation.metrics.frechet import Features, Statistics, frechet_distance

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

PERCENTILES = (2.5, 97.5)
WIDTH = 1.96
"""Half of the 95 % interval of a normal distribution, in standard deviations."""
BATCH = 50
"""Resamples at a time. All at once take 240 MB for 30,000 images, and are slower."""

STATISTICS: dict[str, Callable[[Values], Values]] = {"mean": np.positive, "root_mean": np.sqrt}
"""The function of the mean of per-image values."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval from n images; the bounds are NaN if unknown.

    `singular` marks a Fréchet distance from so few images that a covariance lacks full rank.
    """

    value: float
    low: float
    high: float
    n: int
    singular: bool = False


def mean(values: Values, seed: int, draws: int = 1000) -> Estimate:
    """Mean of per-image values (N,) and its percentile interval. ColdbenchError if N is 0."""
    return _percentile_interval((values,), lambda v, axis: v.mean(axis=axis), seed, draws)


def difference(a: Values, b: Values, statistic: str, seed: int, draws: int = 1000) -> Estimate:
    """statistic(a) − statistic(b) of per-image values (N,) of the same images in the same order.

    `statistic` is mean, or root_mean: the root of the mean, which is the pooled RMSE of squared errors. Both sides use
    the same resampled images, so that the effect of an image on both cancels. The interval is of percentiles.
    ColdbenchError for another statistic, unequal lengths or no images.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    _check_pairs(len(a), len(b))
    function = STATISTICS[statistic]

    def paired(one: Values, other: Values, axis: int) -> Values:
        return function(one.mean(axis=axis)) - function(other.mean(axis=axis))

    return _percentile_interval((a, b), paired, seed, draws)


def _percentile_interval(samples: tuple[Values, ...], statistic: Callable[..., Any], seed: int, draws: int) -> Estimate:
    n = len(samples[0])
    if n < 1:
        raise ColdbenchError("no images: a mean needs at least 1")
    value = float(statistic(*samples, axis=-1))
    if n == 1 or np.isnan(value):  # SciPy refuses a single observation, and warns of values that are not finite
        return Estimate(value, value, value, n)
    generator = np.random.default_rng(seed)
    result = bootstrap(
        samples, statistic, n_resamples=draws, batch=BATCH, paired=True, method="percentile", rng=generator
    )
    low, high = result.confidence_interval
    return Estimate(value, float(low), float(high), n)


def frechet(
    features: Features, reference: Statistics, seed: int, draws: int, originals: Features | None = None
) -> Estimate:
    """Fréchet distance of features (n, d) to the reference, n at least 2.

    The interval is the value ± 1.96 standard deviations of the distances of resampled rows, NaN for 0 `draws`.
    Percentiles would not do: a resample repeats rows, which lowers the rank of its covariance and biases every distance
    upwards, often past the value. `originals` (n, d) are the rows of the reference if it is of the same images in the
    same order. Each image is then drawn with its original, because the variation that both share is no part of the
    distance. Any other reference is fixed. ColdbenchError as for `frechet_distance`, for 1 draw, and for another
    number of originals.
    """
    resampled = _resampled_reference(reference, originals, len(features))

    def distance(rows: Rows) -> float:
        return _distance(features[rows], resampled(rows))

    singular = reference.singular or _singular(features)
    return _normal_interval(_distance(features, reference), distance, len(features), singular, seed, draws)


def frechet_difference(
    a: Features, b: Features, reference: Statistics, seed: int, draws: int, originals: Features | None = None
) -> Estimate:
    """distance(a) − distance(b) to the reference, of features (n, d) of the same images in the same order.

    The interval is that of `frechet`, of differences between the same resampled rows of both. ColdbenchError as for
    `frechet`, and for unequal lengths.
    """
    _check_pairs(len(a), len(b))
    resampled = _resampled_reference(reference, originals, len(a))

    def distance(rows: Rows) -> float:
        same = resampled(rows)
        return _distance(a[rows], same) - _distance(b[rows], same)

    value = _distance(a, reference) - _distance(b, reference)
    return _normal_interval(value, distance, len(a), reference.singular or _singular(a), seed, draws)


def _normal_interval(
    value: float, distance: Callable[[Rows], float], n: int, singular: bool, seed: int, draws: int
) -> Estimate:
    if not draws:
        return Estimate(value, float("nan"), float("nan"), n, singular)
    if draws == 1:
        raise ColdbenchError("draws: 1 resample has no standard deviation; give 0 for no interval, or at least 2")
    generator = np.random.default_rng(seed)
    result = bootstrap(
        (np.arange(n),), distance, n_resamples=draws, vectorized=False, method="percentile", rng=generator
    )
    reach = WIDTH * float(result.standard_error)
    return Estimate(value, value - reach, value + reach, n, singular)


def _resampled_reference(reference: Statistics, originals: Features | None, n: int) -> Callable[[Rows], Statistics]:
    """The reference that belongs to resampled rows of n images."""
    if originals is None:
        return lambda rows: reference
    _check_pairs(n, len(originals))
    return lambda rows: Statistics.of(originals[rows])


def _distance(features: Features, reference: Statistics) -> float:
    return frechet_distance(Statistics.of(features), reference)


def _singular(features: Features) -> bool:
    n, d = features.shape
    return bool(n <= d)


def _check_pairs(a: int, b: int) -> None:
    if a != b:
        raise ColdbenchError(f"values of {a} and of {b} images are not pairs of the same images")
