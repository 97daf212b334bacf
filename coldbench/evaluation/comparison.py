"""Paired comparisons of methods on the same images: differences with intervals, corrected p-values, and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.stats import ttest_rel

from coldbench.core.errors import unknown
from coldbench.evaluation.metrics import intervals
from coldbench.evaluation.metrics.intervals import Estimate, Values

LEVEL = 0.05
"""A difference is decided if its corrected p-value is below this."""
Outcome = Literal["better", "worse", "undecided"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline on the same images.

    `estimate` is the difference with its 95 % interval. `p` is the two-sided p-value of a paired t test over images,
    NaN if there is none: for a single image, or values that are not finite. `corrected` is the p-value by Holm's method
    among all comparisons with the same baseline.
    """

    estimate: Estimate
    p: float
    corrected: float
    outcome: Outcome

    @property
    def decided(self) -> bool:
        return self.outcome != "undecided"


def compare(
    values: Mapping[Key, Values], baseline: Key, statistic: str, higher_is_better: bool, seed: int
) -> dict[Key, Difference]:
    """The difference of every method but the baseline to the baseline.

    `values` holds per-image values (N,) of the same images in the same order, by method. `statistic` is what the metric
    is of them: mean, or root_mean. The interval resamples images, and the test is one of the values themselves, so of
    squared errors for a root mean square. ColdbenchError for unequal lengths or another statistic or baseline.
    """
    if baseline not in values:
        raise unknown("baseline", str(baseline), map(str, values))
    reference = values[baseline]
    others = {key: each for key, each in values.items() if key != baseline}
    estimates = {key: difference(each, reference, statistic, seed) for key, each in others.items()}
    p = [paired_p(each, reference) for each in others.values()]
    corrected = holm(p)
    return {
        key: Difference(estimate, raw, own, _outcome(estimate.value, own, higher_is_better))
        for (key, estimate), raw, own in zip(estimates.items(), p, corrected, strict=True)
    }


def difference(a: Values, b: Values, statistic: str, seed: int) -> Estimate:
    """`intervals.difference`, which is NaN if a value is not finite, because a sampler diverged."""
    if len(a) == len(b) and not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Estimate(math.nan, math.nan, math.nan, len(a))
    return intervals.difference(a, b, statistic, seed)


def paired_p(a: Values, b: Values) -> float:
    """The two-sided p-value of a paired t test, 1 for equal values; NaN for one image or values that are not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    differences = a - b
    if not differences.any():
        return 1.0
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:  # the same difference in every image, of which SciPy warns
        return 0.0
    return float(ttest_rel(a, b).pvalue)


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
