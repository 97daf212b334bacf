"""Paired comparisons of methods on the same images: differences with intervals, corrected p-values, and ranks.

Values are float64 (K, N): of N images, restored after each of K trainings. A method of one training, or without a
network, has K = 1 and is compared with every training of the other. Otherwise trainings are paired in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.special import stdtr

from coldbench.evaluation.metrics import intervals
from coldbench.evaluation.metrics.intervals import Estimate, Values
from coldbench.evaluation.trainings import mean_of

LEVEL = 0.05
"""A difference is decided if its corrected p-value is below this."""
Outcome = Literal["better", "worse", "undecided"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline on the same images.

    `estimate` is the difference with its 95 % interval. `p` is the two-sided p-value of `paired_p`, NaN if there is
    none: for a single image, or values that are not finite. `corrected` is the p-value by Holm's method among all
    comparisons with the same baseline.
    """

    estimate: Estimate
    p: float
    corrected: float
    outcome: Outcome

    @property
    def decided(self) -> bool:
        return self.outcome != "undecided"


def compare(
    pairs: Mapping[Key, tuple[Values, Values]], statistic: str, higher_is_better: bool, seed: int
) -> dict[Key, Difference]:
    """The difference of every method to the baseline.

    `pairs` holds by method its values (K, N) and those of the baseline, of the same images in the same order.
    `statistic` is what the metric is of them: mean, or root_mean. The test is one of the values themselves, so of
    squared errors for a root mean square. ColdbenchError for unequal lengths or another statistic.
    """
    estimates = {key: difference(*pair, statistic, seed) for key, pair in pairs.items()}
    p = [paired_p(*pair) for pair in pairs.values()]
    corrected = holm(p)
    return {
        key: Difference(estimate, raw, own, _outcome(estimate.value, own, higher_is_better))
        for (key, estimate), raw, own in zip(estimates.items(), p, corrected, strict=True)
    }


def difference(a: Values, b: Values, statistic: str, seed: int) -> Estimate:
    """The difference of a statistic, with an interval over images and, of several trainings, over both.

    It is NaN if a value is not finite, because a sampler diverged.
    """
    a, b = _paired(a, b)
    if a.shape == b.shape and not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Estimate(math.nan, math.nan, math.nan, a.shape[1])
    return over_both([intervals.difference(one, other, statistic, seed) for one, other in zip(a, b, strict=True)])


def over_both(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of the trainings' estimates, with the interval of `trainings.mean_of`."""
    value, low, high, _ = mean_of([(each.value, each.low, each.high) for each in estimates])
    return Estimate(value, low, high, estimates[0].n)


def _paired(a: Values, b: Values) -> tuple[Values, Values]:
    """Both with the same number of trainings."""
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    count = max(len(a), len(b)) if min(len(a), len(b)) == 1 else min(len(a), len(b))
    return tuple(np.broadcast_to(each[:count], (count, each.shape[1])) for each in (a, b))  # type: ignore[return-value]


def paired_p(a: Values, b: Values) -> float:
    """The two-sided p-value of the difference of two means, 1 for equal values; NaN for one image or infinite values.

    Of one training it is a paired t test over images. Of several, the variance of the mean difference is the sum of
    that over trainings and that over images, whose degrees of freedom are by Satterthwaite (1946).
    """
    a, b = _paired(a, b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    differences = a - b
    count, images = differences.shape
    if not differences.any():
        return 1.0
    if images < 2:
        return math.nan
    means, of_images = differences.mean(axis=1), differences.mean(axis=0)
    variances = [of_images.var(ddof=1) / images]
    if count > 1:
        variances.append(means.var(ddof=1) / count)
    total = float(sum(variances))
    if total < np.finfo(np.float64).eps * float(np.square(differences).max()):  # the same difference everywhere
        return 0.0
    freedom = total**2 / sum(v**2 / (k - 1) for v, k in zip(variances, (images, count), strict=False))
    return float(2 * stdtr(freedom, -abs(differences.mean()) / math.sqrt(total)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected by Holm's method (1979); an unknown one (NaN) counts as 1.

    The k-th smallest of m, counted from 0, is multiplied by m − k, is at least the corrected value before it, and at
    most 1. So the chance of any wrong decision among all m stays below the level.
    """
    known = np.nan_to_num(np.asarray(p, dtype=np.float64), nan=1.0)
    order = np.argsort(known, kind="stable")
    raised = np.maximum.accumulate(known[order] * (len(known) - np.arange(len(known))))
    corrected = np.empty_like(known)
    corrected[order] = np.minimum(raised, 1.0)
    return [float(each) for each in corrected]


def _outcome(difference: float, corrected: float, higher_is_better: bool) -> Outcome:
    if not corrected < LEVEL or not difference:
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"


def ranks(best_first: Sequence[Key], tied: Callable[[Key, Key], bool]) -> dict[Key, int]:
    """The rank of each method, from 1, of methods in the order of their means.

    A method shares the rank of the first one of that rank if `tied(first, method)`. As in sports, the rank after k
    methods that share rank r is r + k.
    """
    places: dict[Key, int] = {}
    first = 0
    for place, key in enumerate(best_first):
        if not (places and tied(best_first[first], key)):
            first = place
        places[key] = first + 1
    return places


def no_difference(a: Values, b: Values, statistic: str, seed: int) -> bool:
    """Whether the 95 % interval of the paired difference contains 0; false if it is unknown."""
    estimate = difference(a, b, statistic, seed)
    return estimate.low <= 0 <= estimate.high


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two 95 % intervals overlap, for values without images to pair; false if one is unknown."""
    return a.low <= b.high and b.low <= a.high
