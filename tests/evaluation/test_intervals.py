"""Intervals: coverage of the truth, agreement with brute force and with the normal approximation, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics import intervals, similarity
from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance

TARGET = Statistics(np.zeros(3), np.eye(3), 10_000)


def pairs_of(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated squared errors of n images: means 2 and 1.25, half of the variance shared."""
    shared, one, other = np.random.default_rng(seed).normal(size=(3, n))
    return (shared + one) ** 2, (shared + one / 4 + other / 4 * 3**0.5) ** 2


@pytest.mark.parametrize("pooled", [similarity.pooled_ssim, similarity.pooled_rmse, similarity.mean_rmse])
def test_interval_of_many_images_is_the_normal_one(pooled: Callable[[np.ndarray, int], intervals.Estimate]) -> None:
    """Its width falls with 1/√n, and the seed fixes it. One image has an interval of no width."""
    widths = []
    for n in (100, 1600):
        values = np.random.default_rng(n).uniform(0.5, 1.5, size=n)
        estimate = pooled(values, 7)
        assert estimate == pooled(values, 7)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == n
        widths.append(estimate.high - estimate.low)
    assert 3 < widths[0] / widths[1] < 5.3
    averaged = np.sqrt(values) if pooled is similarity.mean_rmse else values
    slope = 0.5 / estimate.value if pooled is similarity.pooled_rmse else 1.0  # of the square root
    assert widths[1] == pytest.approx(2 * 1.96 * averaged.std() / 40 * slope, rel=0.1)
    one = pooled(values[:1], 0)
    assert one.low == one.value == one.high


def test_interval_is_of_the_percentiles_of_resampled_means() -> None:
    """Resample by resample, from the generator of the seed."""
    a, b = pairs_of(123, 0)
    generator = np.random.default_rng(5)
    rows = [generator.integers(0, 123, 123) for _ in range(1000)]
    for estimate, resampled in (
        (intervals.mean(a, 5), [a[each].mean() for each in rows]),
        (intervals.difference(a, b, "mean", 5), [a[each].mean() - b[each].mean() for each in rows]),
        (
            intervals.difference(a, b, "root_mean", 5),
            [a[each].mean() ** 0.5 - b[each].mean() ** 0.5 for each in rows],
        ),
    ):
        expected = np.percentile(resampled, (2.5, 97.5))
        np.testing.assert_allclose((estimate.low, estimate.high), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (lambda a, b, seed: intervals.mean(a, seed, 300), 2.0),
        (lambda a, b, seed: intervals.difference(a, b, "mean", seed, 300), 0.75),
        (lambda a, b, seed: intervals.difference(a, b, "root_mean", seed, 300), 2**0.5 - 1.25**0.5),
    ],
    ids=["mean", "difference", "difference of roots"],
)
def test_interval_covers_the_truth(
    interval: Callable[[np.ndarray, np.ndarray, int], intervals.Estimate], truth: float
) -> None:
    """About 95 % of 400 intervals from new images hold it; misses lie on both sides."""
    estimates = [interval(*pairs_of(150, seed), seed) for seed in range(400)]
    missed = [sum(e.high < truth for e in estimates), sum(e.low > truth for e in estimates)]
    assert 0.91 <= 1 - sum(missed) / 400 <= 0.98
    assert min(missed) > 0
    assert np.mean([e.value for e in estimates]) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize(
    ("statistic", "pooled"), [("mean", similarity.pooled_ssim), ("root_mean", similarity.pooled_rmse)]
)
def test_difference_is_that_of_pooled_values(
    statistic: str, pooled: Callable[[np.ndarray, int], intervals.Estimate]
) -> None:
    """Pairs narrow the interval; the difference from zeros is the pooled value, interval included."""
    a, b = pairs_of(500, 0)
    one, other, estimate = pooled(a, 3), pooled(b, 3), intervals.difference(a, b, statistic, 3)
    assert estimate.value == pytest.approx(one.value - other.value)
    assert (estimate.n, estimate.singular) == (500, False)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.high - estimate.low < 0.9 * math.hypot(one.high - one.low, other.high - other.low)
    back = intervals.difference(b, a, statistic, 3)
    assert [back.value, back.low, back.high] == pytest.approx([-estimate.value, -estimate.high, -estimate.low])
    alone = intervals.difference(a, np.zeros(500), statistic, 3)
    assert [alone.value, alone.low, alone.high] == pytest.approx([one.value, one.low, one.high], rel=1e-4)
    assert intervals.difference(a, a, statistic, 3) == intervals.Estimate(0, 0, 0, 500)


def paired_features(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 3) of originals, and of the same images by two methods."""
    shared, one, other = np.random.default_rng(seed).normal(size=(3, n, 3)) * [[[1.0]], [[0.3]], [[0.2]]]
    return shared, 0.9 * shared + one, 0.8 * shared + other + 0.1


def distance(rows: np.ndarray, target: Statistics) -> float:
    return frechet_distance(Statistics.of(rows), target)


@pytest.mark.parametrize("restored", [False, True], ids=["fixed reference", "reference of the originals"])
def test_frechet_interval_is_the_deviation_between_sets_of_images(restored: bool) -> None:
    """Of the distance and of the difference, with the originals of each set or with one fixed reference."""
    samples = [paired_features(200, seed) for seed in range(150)]
    seen = np.array([[distance(x, Statistics.of(o) if restored else TARGET) for x in (a, b)] for o, a, b in samples])
    originals, a, b = samples[0]
    target = Statistics.of(originals) if restored else TARGET
    options = {"seed": 7, "draws": 150, "originals": originals if restored else None}
    lone, both = intervals.frechet(a, target, **options), intervals.frechet_difference(a, b, target, **options)
    for estimate, values in [(lone, seen[:, 0]), (both, seen[:, 0] - seen[:, 1])]:
        assert estimate.value == pytest.approx(values[0])
        assert (estimate.high - estimate.low) / 3.92 == pytest.approx(values.std(), rel=0.3)
        assert estimate.value == pytest.approx((estimate.low + estimate.high) / 2)
        assert (estimate.n, estimate.singular) == (200, False)
    assert lone == intervals.frechet(a, target, **options)
    assert both == intervals.frechet_difference(a, b, target, **options)
    assert lone.low != intervals.frechet(a, target, **{**options, "seed": 8}).low


def test_originals_narrow_the_frechet_interval() -> None:
    """A perfect restoration has an interval of no width."""
    originals, a, _ = paired_features(200, 0)
    target = Statistics.of(originals)
    lone, fixed = intervals.frechet(a, target, 7, 150, originals), intervals.frechet(a, target, 7, 150)
    assert fixed.high - fixed.low > 2 * (lone.high - lone.low)
    perfect = intervals.frechet(originals, target, 7, 20, originals)
    assert (perfect.low, perfect.value, perfect.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_frechet_interval_is_of_the_sample_deviation() -> None:
    """Two resamples by hand; the sample deviation divides by one."""
    _, a, b = paired_features(30, 0)
    generator = np.random.default_rng(4)
    rows = [generator.integers(0, 30, 30) for _ in range(2)]
    one, other = ([distance(x[each], TARGET) for each in rows] for x in (a, b))
    for estimate, values in [
        (intervals.frechet(a, TARGET, 4, 2), one),
        (intervals.frechet_difference(a, b, TARGET, 4, 2), np.subtract(one, other)),
    ]:
        assert estimate.high - estimate.value == pytest.approx(1.96 * abs(values[0] - values[1]) / 2**0.5)


@pytest.mark.parametrize(("n", "m", "singular"), [(3, 4, True), (4, 3, True), (2, 2, True), (4, 4, False)])
def test_frechet_estimate_is_singular_if_either_side_is(n: int, m: int, singular: bool) -> None:
    """Without draws the bounds are unknown."""
    a, b, target = (np.random.default_rng(seed).normal(size=(size, 3)) for seed, size in enumerate((n, n, m)))
    statistics = Statistics.of(target)
    lone, both = intervals.frechet(a, statistics, 0, 0), intervals.frechet_difference(a, b, statistics, 0, 0)
    assert lone.singular == both.singular == singular
    assert both.value == pytest.approx(lone.value - intervals.frechet(b, statistics, 0, 0).value)
    assert all(math.isnan(bound) for estimate in (lone, both) for bound in (estimate.low, estimate.high))


ONES, ROWS = np.ones(5), paired_features(5, 0)[0]
REFUSALS: list[tuple[Callable[[], object], str]] = [  # call, offending value and nearest valid choice
    (lambda: intervals.mean(ONES[:0], 0), "no images"),
    (lambda: intervals.difference(ONES[:0], ONES[:0], "mean", 0), "no images"),
    (lambda: intervals.difference(ONES, ONES[:4], "mean", 0), "of 5 and of 4 images"),
    (lambda: intervals.difference(ONES, ONES, "median", 0), r"statistic 'median'.*mean, root_mean"),
    (lambda: intervals.frechet(ROWS, TARGET, 0, 1), "1 resample"),
    (lambda: intervals.frechet(ROWS, TARGET, 0, 0, ROWS[1:]), "of 5 and of 4 images"),
    (lambda: intervals.frechet_difference(ROWS, ROWS[1:], TARGET, 0, 0), "of 5 and of 4 images"),
]


@pytest.mark.parametrize(("call", "names"), REFUSALS)
def test_values_without_an_interval_are_refused(call: Callable[[], object], names: str) -> None:
    with pytest.raises(ColdbenchError, match=names):
        call()
