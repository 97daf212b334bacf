"""Where a trajectory begins: at a degraded test image, or at a start drawn for a generation.

Everything drawn for image i follows from (seed, purpose, i), so images may be made in any order, number and place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data
from coldbench.core import rng
from coldbench.core.config import SampleSet, Start
from coldbench.core.errors import ColdbenchError
from coldbench.data import preprocessing
from coldbench.degradations import Degradation, Drawn, initial_xt
from coldbench.sampling import priors


@dataclass(frozen=True)
class Begin:
    """One batch's beginning: x at the first severity, the draw that the sampler is given, how to draw one anew for a
    severity, and the original x0 where there is one."""

    x: Tensor
    drawn: Drawn
    redraw: Callable[[int], Drawn]
    x0: Tensor | None = None


@dataclass(frozen=True)
class Origin:
    """`images` beginnings, and how their trajectories run: from `severity` down, `every` severities at a time."""

    degradation: Degradation
    images: int
    severity: int
    stride: int
    released_shift: bool
    begin: Callable[[range], Begin]

    @property
    def options(self) -> dict[str, Any]:
        """What `samplers.sample` is told beyond the batch."""
        return {"start": self.severity, "stride": self.stride, "released_shift": self.released_shift}

    def visited(self, method: str) -> list[int]:
        """The severities at which the network is called."""
        return [self.severity] if method == "direct" else list(range(self.severity, 0, -self.stride))

    def steps(self, method: str) -> int:
        """The number of times that the network is called."""
        return len(self.visited(method))


def origin(
    wanted: SampleSet,
    degradation: Degradation,
    prepared: Path,
    seed: int,
    device: torch.device,
    images: int | None,
) -> Origin:
    """The beginnings of a set: of the first `images` test images in `prepared` (null: all), or of that many starts.

    Raises ColdbenchError if there are fewer test images, or none to fit a start to.
    """
    info = data.info(prepared)
    first = wanted.assumed_severity or wanted.severity or degradation.T
    if wanted.start is None:
        tests = data.load(prepared, "test")
        n = len(tests) if images is None else images
        if n > len(tests):
            raise ColdbenchError(f"sampling.images is {n}, but the test set of {info['name']} has {len(tests)} images")
        begin = _restoration(wanted, degradation, tests, seed, device)
    else:
        n = images or 0
        begin = _generation(wanted.start, degradation, prepared, info["channels"], seed, device)
    return Origin(degradation, n, first, wanted.stride, wanted.released_shift, begin)


def degraded(
    degradation: Degradation,
    tests: npt.NDArray[np.uint8],
    where: range,
    seed: int,
    device: torch.device,
    severity: int | None = None,
) -> tuple[Tensor, Tensor, Drawn]:
    """Test images `where`: x0, x at `severity` (default T, where the protocol may have 8-bit values), and the draw."""
    x0 = preprocessing.test_images(tests, degradation.size, slice(where.start, where.stop), device)
    drawn = degradation.draw(_indices(where, device), rng.derive(seed, "test"))
    if severity is None or severity == degradation.T:
        return x0, initial_xt(degradation, x0, drawn), drawn
    return x0, degradation(x0, torch.full((len(x0),), severity, device=device), drawn), drawn


def _indices(where: range, device: torch.device) -> Tensor:
    return torch.arange(where.start, where.stop, device=device)


def _redraw(
    degradation: Degradation, where: range, seed: int, device: torch.device, what: str
) -> Callable[[int], Drawn]:
    """What the methods need that draw at every step: a draw of the same images for severity s alone."""
    return lambda s: degradation.draw(_indices(where, device), rng.derive(seed, f"{what}, step {s}"))


def _restoration(
    wanted: SampleSet, degradation: Degradation, tests: npt.NDArray[np.uint8], seed: int, device: torch.device
) -> Callable[[range], Begin]:
    def begin(where: range) -> Begin:
        x0, x, drawn = degraded(degradation, tests, where, seed, device, wanted.severity)
        if wanted.known == "redrawn":
            drawn = degradation.draw(_indices(where, device), rng.derive(seed, "test, another state"))
        return Begin(x, drawn, _redraw(degradation, where, seed, device, "test"), x0)

    return begin


def _generation(
    wanted: Start, degradation: Degradation, prepared: Path, channels: int, seed: int, device: torch.device
) -> Callable[[range], Begin]:
    mixture = None
    if wanted.kind in priors.FITTED:
        features = priors.features(wanted.kind, degradation, training_batches(prepared, degradation.size, device))
        mixture = priors.fit(features, wanted.components, seed)

    def begin(where: range) -> Begin:
        indices, own = _indices(where, device), rng.derive(seed, "generation")
        x, drawn = priors.draw(wanted.kind, degradation, indices, own, channels, mixture, wanted.noise_level)
        return Begin(x, drawn, _redraw(degradation, where, seed, device, "generation"))

    return begin


def training_batches(prepared: Path, size: int, device: torch.device, batch: int = 500) -> Iterator[Tensor]:
    """The middle of every training image, as float32 (N, C, size, size) in [-1, 1]."""
    images = data.load(prepared, "train")
    for first in range(0, len(images), batch):
        yield preprocessing.test_images(images, size, slice(first, first + batch), device)
