"""95 % intervals by resampling images (Efron, 1979): for a mean, a paired difference and Fréchet distances.

The seed fixes the rows that are drawn, so that a value and its interval are the same again. An interval speaks of the
images that happened to be scored, not of training anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.evaluation.metrics.frechet import Features, Statistics, frechet_distance

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

PERCENTILES = (2.5, 97.5)
WIDTH = 1.96
"""Standard deviations that 95 % of a normal distribution lie within."""

STATISTICS: dict[str, Callable[[Values], Values]] = {"mean": np.positive, "root_mean": np.sqrt}
"""What is made of the mean of per-image values."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval from n images; NaN bounds: not known.

    `singular`: a Fréchet distance of so few images that a covariance lacks full rank.
    """

    value: float
    low: float
    high: float
    n: int
    singular: bool = False


def mean(values: Values, seed: int, draws: int = 1000) -> Estimate:
    """Mean of per-image values (N,), N at least 1 (else ColdbenchError), and its percentile interval."""
    means = [values[rows].mean() for rows in _resamples(len(values), seed, draws)]
    low, high = np.percentile(means, PERCENTILES).tolist()
    return Estimate(float(values.mean()), low, high, len(values))


def difference(a: Values, b: Values, statistic: str, seed: int, draws: int = 1000) -> Estimate:
    """statistic(a) − statistic(b) of per-image values (N,) of the same images in the same order, N at least 1.

    `statistic` is mean, or root_mean: the root of the mean, which of squared errors is the pooled RMSE. Both sides are
    taken from the same resampled images, so that what an image does to both cancels; a percentile interval.
    ColdbenchError for another statistic, unequal lengths or no images.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    _check_pairs(len(a), len(b))
    both = np.stack([a, b])
    means = np.array([both.take(rows, axis=1).mean(axis=1) for rows in _resamples(len(a), seed, draws)])
    drawn, value = STATISTICS[statistic](means), STATISTICS[statistic](both.mean(axis=1))
    low, high = np.percentile(drawn[:, 0] - drawn[:, 1], PERCENTILES).tolist()
    return Estimate(float(value[0] - value[1]), low, high, len(a))


def frechet(
    features: Features, reference: Statistics, seed: int, draws: int, originals: Features | None = None
) -> Estimate:
    """Fréchet distance of features (n, d), n at least 2, to the reference; `draws` 0 leaves the bounds NaN.

    The interval is the value ± 1.96 standard deviations of the distances of resampled rows. It is not of percentiles:
    a resample repeats rows, which shrinks its covariance's rank and biases every such distance upwards, often past the
    value itself. `originals` (n, d) are the reference's own rows where it is of the same images in the same order: an
    image is then drawn with its original, for what both share is no part of their distance. Any other reference is
    taken as fixed. ColdbenchError as `frechet_distance`, for 1 draw, and for another number of originals.
    """
    there = _redrawn(reference, originals, len(features))
    drawn = [_distance(features[rows], there(rows)) for rows in _resamples(len(features), seed, draws)]
    singular = reference.singular or _singular(features)
    return _around(_distance(features, reference), drawn, len(features), singular)


def frechet_difference(
    a: Features, b: Features, reference: Statistics, seed: int, draws: int, originals: Features | None = None
) -> Estimate:
    """distance(a) − distance(b) to the reference, of features (n, d) of the same images in the same order.

    The interval is as `frechet`'s, of differences between the same resampled rows of both. ColdbenchError as there and
    for unequal lengths.
    """
    _check_pairs(len(a), len(b))
    there, drawn = _redrawn(reference, originals, len(a)), []
    for rows in _resamples(len(a), seed, draws):
        same = there(rows)
        drawn.append(_distance(a[rows], same) - _distance(b[rows], same))
    singular = reference.singular or _singular(a)
    return _around(_distance(a, reference) - _distance(b, reference), drawn, len(a), singular)


def _redrawn(reference: Statistics, originals: Features | None, n: int) -> Callable[[Rows], Statistics]:
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


def _around(value: float, drawn: Sequence[float], n: int, singular: bool) -> Estimate:
    if len(drawn) == 1:
        raise ColdbenchError("draws: 1 resample has no standard deviation; give 0 for no interval, or more")
    reach = WIDTH * float(np.std(drawn, ddof=1)) if drawn else float("nan")
    return Estimate(value, value - reach, value + reach, n, singular)


def _check_pairs(a: int, b: int) -> None:
    if a != b:
        raise ColdbenchError(f"values of {a} and of {b} images are not pairs of the same images")


def _resamples(n: int, seed: int, draws: int) -> Iterator[Rows]:
    """Rows of n images drawn with replacement, `draws` times."""
    if n < 1:
        raise ColdbenchError("no images: there is nothing to average")
    generator = np.random.default_rng(seed)
    return (generator.integers(0, n, n) for _ in range(draws))
