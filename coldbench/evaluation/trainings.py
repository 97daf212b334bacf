"""Several trainings of one configuration as one: mean, spread, and an interval that covers trainings and images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes half a second to import, and every page of the report would

from coldbench.evaluation.scores import Score, Scores

NOT_NEGATIVE = ("fid", "frechet", "rmse")
"""How the names of metrics without negative values begin."""


def over_trainings(scores: Iterable[Score]) -> Scores:
    """The scores with those of several seeds as one, under the run of the smallest seed.

    Scores that differ in nothing but the seed count together: `value` is their mean, `spread` their standard deviation
    and `trainings` their number. The bounds combine two independent parts. One is Student's t interval over the
    trainings, because a bootstrap of a few trainings is too narrow. The other is the interval over the images, which
    more trainings do not narrow, because all restore the same images. So the bounds of one training are its own. A
    distance that varies much between trainings has 0 as its lower bound, not less.
    """
    groups: dict[tuple[object, ...], list[Score]] = {}
    for score in scores:
        same = (score.experiment, score.protocol, score.budget, score.dataset, score.set, score.method, score.metric)
        groups.setdefault((*same, score.reference, score.n, score.steps, score.known), []).append(score)
    return tuple(score for group in groups.values() for score in _together(group))


def _together(group: Sequence[Score]) -> Sequence[Score]:
    group = sorted(group, key=lambda score: score.seed)
    if len({score.seed for score in group}) < len(group):
        return group  # equal seeds are no further trainings
    if group[0].method == "degraded" or len(group) == 1:
        return group[:1]  # no training decides the degraded images
    return [_mean(group)]


def _mean(group: Sequence[Score]) -> Score:
    value, low, high, spread = mean_of([(score.value, score.low, score.high) for score in group])
    if "-" not in group[0].method and group[0].metric.startswith(NOT_NEGATIVE):
        low = max(low, 0.0)
    return dataclasses.replace(group[0], value=value, low=low, high=high, spread=spread, trainings=len(group))


def mean_of(estimates: Sequence[tuple[float, float, float]]) -> tuple[float, float, float, float]:
    """The mean of values (value, low, high) of several trainings, with its bounds, and the standard deviation.

    One training keeps its bounds, and its standard deviation is NaN.
    """
    if len(estimates) == 1:
        return *estimates[0], math.nan
    values, low, high = np.array(estimates).T
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    trainings = float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
    below = math.hypot(trainings, float(np.abs(values - low).mean()))
    above = math.hypot(trainings, float(np.abs(high - values).mean()))
    return mean, mean - below, mean + above, spread
