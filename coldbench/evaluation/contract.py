"""The laws of metrics, tried on a few small images; `core.laws` says what a law is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coldbench.core import plugins, rng
from coldbench.core.laws import Broken, Law, Skipped, cases_in, labelled
from coldbench.evaluation.measurements import PerImage, per_image
from coldbench.evaluation.metrics.intervals import Values

SIZE, COUNT = 32, 4
"""Side of the images, unless the parameters state a `size`, and their number."""
TOLERANCE = 1e-4
"""Relative to the largest value, because metrics have any scale."""


@dataclass(frozen=True)
class Case:
    """A metric with its parameters, on images of one channel or three."""

    metric: PerImage
    channels: int
    size: int = SIZE
    label: str = ""

    def __str__(self) -> str:
        return self.label

    def images(self) -> Tensor:
        """Smooth images in [0, 1], float32 (COUNT, C, size, size)."""
        words = rng.uniform(1, "image", torch.arange(COUNT), self.channels * 64).reshape(COUNT, self.channels, 8, 8)
        smooth = torch.nn.functional.interpolate(words, size=(self.size, self.size), mode="bilinear")
        return smooth.to(torch.float32)

    def noisy(self, level: float) -> Tensor:
        """The images with uniform noise, which may leave [0, 1], as those of a sampler may."""
        x = self.images()
        words = rng.uniform(2, "noise", torch.arange(COUNT), x[0].numel()).reshape(x.shape)
        return x + (2 * level * (words - 0.5)).to(x.dtype)


def cases(name: str, parameters: Mapping[str, Any], data: Path) -> Iterator[Case]:
    """The metric with each of its `test_params`, or its defaults, on images of one channel and of three."""
    kind = plugins.load("metric", name).object
    yield from cases_in(kind, name, parameters, SIZE, lambda spec, size: cases_of(spec, None, size))


def cases_of(spec: Mapping[str, Any], channels: int | None, size: int) -> Iterator[Case]:
    """A metric with its parameters, on images of so many channels; None: one and three."""
    metric = per_image(spec)
    for number in (channels,) if channels else (1, 3):
        yield Case(metric, number, size, labelled({**spec, "channels": number}))


def _away(a: Values, b: Values | float) -> float:
    """The largest difference relative to the largest value."""
    return float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max())))


def one_value_for_each(case: Case) -> str | None:
    """(N,) finite values, also for equal images, for images of one grey level, and for images outside [0, 1]."""
    originals, grey = case.images(), torch.full_like(case.images(), 0.25)
    for what, images in (("", case.noisy(0.2)), (" for equal images", originals), (" for images of one level", grey)):
        if not np.isfinite(case.metric(originals, images)).all():
            raise Broken(f"a value is NaN or infinite{what}")
    if not np.isfinite(case.metric(grey, originals)).all():
        raise Broken("a value is NaN or infinite for originals of one level")
    return None


def best(case: Case) -> str | None:
    """Equal images have the best value."""
    if case.metric.best is None:
        raise Skipped("no `best` is declared")
    values = case.metric(case.images(), case.images())
    if not _away(values, case.metric.best) <= TOLERANCE:
        raise Broken(f"equal images have the value {values[0]:.4g}, but `best` is {case.metric.best:g}")
    return f"{case.metric.best:g} for equal images"


def symmetric(case: Case) -> str | None:
    """Originals and images can change places."""
    if not case.metric.symmetric:
        raise Skipped("symmetric=False")
    a, b = case.images(), case.noisy(0.2).clamp(0, 1)
    one, other = case.metric(a, b), case.metric(b, a)
    if not _away(one, other) <= TOLERANCE:
        raise Broken(
            f"{one[0]:.4g} becomes {other[0]:.4g} if originals and images change places; if they may not, say "
            "symmetric=False in the decorator"
        )
    return None


def batch_independence(case: Case) -> str | None:
    """The value of a pair does not depend on the other pairs."""
    a, b = case.images(), case.noisy(0.2)
    together = case.metric(a, b)
    for i in range(COUNT):
        alone = case.metric(a[[i]], b[[i]])
        if not _away(together[[i]], alone) <= TOLERANCE:
            raise Broken(f"pair {i} has the value {together[i]:.4g} in a batch and {alone[0]:.4g} alone")
    return None


def direction(case: Case) -> str | None:
    """More noise is worse."""
    means = [float(case.metric(case.images(), case.noisy(level)).mean()) for level in (0.05, 0.2, 0.5)]
    worse = means if case.metric.higher_is_better else means[::-1]
    if not worse[0] > worse[1] > worse[2]:
        shown = ", ".join(f"{value:.4g}" for value in means)
        raise Broken(f"noise of 0.05, 0.2, 0.5 has the values {shown}, but {case.metric.direction} is declared better")
    return f"{case.metric.direction} is better"


def deterministic(case: Case) -> str | None:
    """A second call gives the same."""
    a, b = case.images(), case.noisy(0.2)
    first = case.metric(a, b)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = case.metric(a, b)
    if not np.array_equal(first, again):
        raise Broken("a second call gives other values")
    return None


def leaves_its_inputs(case: Case) -> str | None:
    """Neither the originals nor the images are changed."""
    a, b = case.images(), case.noisy(0.2)
    before = a.clone(), b.clone()
    case.metric(a, b)
    if not torch.equal(a, before[0]) or not torch.equal(b, before[1]):
        raise Broken("it changes the images that it is given")
    return None


LAWS = (
    Law("one finite value for each image", one_value_for_each, required=True, basic=True),
    Law("leaves its inputs", leaves_its_inputs, required=True, basic=True),
    Law("best for equal images", best),
    Law("symmetric", symmetric),
    Law("batch independence", batch_independence, required=True),
    Law("direction", direction),
    Law("deterministic", deterministic, required=True),
)
