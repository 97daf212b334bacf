"""Where trajectories start: at a degraded test image, or at an x_T drawn for a generation.

Everything drawn for image i follows from (seed, purpose, i), so images can be made in any order and any batch.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Spec
from coldbench.core.images import batches
from coldbench.core.sampling_settings import Method, SampleSet, Sampling, Start
from coldbench.data import preprocessing
from coldbench.degradations import Degradation, Drawn, initial_xt
from coldbench.models import Restorer
from coldbench.sampling import priors
from coldbench.sampling.samplers import Step, method_of, sample, sources


class Redraw(Protocol):
    """Draws again for the images of a batch, for severity s alone."""

    def __call__(self, s: int, /) -> Drawn: ...


@dataclass(frozen=True)
class InitialState:
    """The start of one batch's trajectories.

    x: the images at the first severity, float32 (N, C, size, size). drawn: what the sampler knows of the degradation.
    redraw: a new draw for one severity. x0: the originals in [-1, 1]; a generation has none.
    """

    x: Tensor
    drawn: Drawn
    redraw: Redraw
    x0: Tensor | None = None


@dataclass(frozen=True)
class SamplingTask(abc.ABC):
    """One set to sample: `images` trajectories by each of `methods`, the samplers by their labels."""

    settings: SampleSet
    methods: Mapping[Method, Spec]
    degradation: Degradation
    images: int
    seed: int
    device: torch.device

    @abc.abstractmethod
    def initial_state(self, indices: range) -> InitialState:
        """The start of the images `indices`."""

    @property
    def severity(self) -> int:
        """The severity that the sampler starts from."""
        return self.settings.assumed_severity or self.settings.severity or self.degradation.T

    def severities(self, method: str) -> list[int]:
        """The severities at which steps begin. A method may evaluate the network more than once in a step."""
        return list(method_of(self.methods[method]).severities(self.severity, self.settings.stride))

    def steps(self, restore: Restorer, method: str, state: InitialState) -> Iterator[Step]:
        """The trajectories from `state` to x_0."""
        return sample(
            restore,
            self.degradation,
            state.x,
            state.drawn,
            self.methods[method],
            start=self.severity,
            stride=self.settings.stride,
            released_shift=self.settings.released_shift,
            redraw=state.redraw,
        )

    def draw(self, purpose: str, indices: range) -> Drawn:
        """What the degradation draws for the images `indices`, for one purpose."""
        return self.degradation.draw(_tensor(indices, self.device), rng.derive(self.seed, purpose))


@dataclass(frozen=True)
class RestorationTask(SamplingTask):
    """Degraded test images, uint8 (N, C, H, W), are restored."""

    tests: npt.NDArray[np.uint8]

    def initial_state(self, indices: range) -> InitialState:
        """Test images at the set's severity; the sampler knows their draw, or another one."""
        severity = self.settings.severity
        x0, x, drawn = degraded(self.degradation, self.tests, indices, self.seed, self.device, severity)

        def draw(purpose: str) -> Drawn:
            return self.degradation.draw_for(x0, _tensor(indices, self.device), rng.derive(self.seed, purpose))

        if self.settings.known == "redrawn":
            drawn = draw("test, another state")
        return InitialState(x, drawn, lambda s: draw(f"test, step {s}"), x0)


@dataclass(frozen=True)
class GenerationTask(SamplingTask):
    """Images of `channels` channels are generated; a fitted start draws from `mixture`."""

    start: Start
    channels: int
    mixture: priors.Mixture | None

    def initial_state(self, indices: range) -> InitialState:
        """x_T drawn for each image."""
        x, drawn = priors.draw(
            self.start.kind,
            self.degradation,
            _tensor(indices, self.device),
            rng.derive(self.seed, "generation"),
            self.channels,
            self.mixture,
            self.start.noise_level,
        )
        return InitialState(x, drawn, lambda s: self.draw(f"generation, step {s}", indices))


def sampling_task(
    sampling: Sampling, name: str, degradation: Degradation, prepared: Path, seed: int, device: torch.device
) -> SamplingTask:
    """The task of set `name`: restore the first `sampling.images` test images in `prepared` (None: all), or generate.

    Raises ColdbenchError if `prepared` has fewer test images, or too few training images to fit a start to.
    """
    info, settings, count = data.info(prepared), sampling.sets[name], sampling.images
    methods, start = {label: sampling.sampler(label) for label in sampling.methods_of(name)}, settings.start
    if start is None:
        tests = data.load(prepared, "test")
        count = len(tests) if count is None else count
        if count > len(tests):
            raise ColdbenchError(
                f"sampling.images is {count}, but the test set of {info['name']} has {len(tests)} images"
            )
        return RestorationTask(settings, methods, degradation, count, seed, device, tests)
    mixture = None
    if start.kind in priors.FITTED:
        features = priors.features(start.kind, degradation, training_batches(prepared, degradation.size, device))
        mixture = priors.fit(features, start.components, seed)
    return GenerationTask(settings, methods, degradation, count or 0, seed, device, start, info["channels"], mixture)


def known_of(sampler: Spec, settings: SampleSet, degradation: Degradation) -> str:
    """What a sampler knows of the degradation of the images in a set: "severity", "drawn" or "redrawn".

    The last two say that it also uses what was drawn for the very image, or another draw in its place. "" for a set of
    generated images, which were not degraded.
    """
    if settings.start is not None:
        return ""
    severity = settings.assumed_severity or settings.severity or degradation.T
    used = sources(sampler, degradation, severity, settings.stride, settings.released_shift)
    return settings.known if degradation.draws and "drawn" in used else "severity"


def degraded(
    degradation: Degradation,
    tests: npt.NDArray[np.uint8],
    indices: range,
    seed: int,
    device: torch.device,
    severity: int | None = None,
) -> tuple[Tensor, Tensor, Drawn]:
    """Test images `indices` of `tests`, uint8: x0, x at `severity` (None: T), and what was drawn for them.

    x0 and x are float32 (N, C, size, size); x_T is quantized if the protocol says so.
    """
    x0 = preprocessing.test_images(tests, degradation.size, slice(indices.start, indices.stop), device)
    drawn = degradation.draw_for(x0, _tensor(indices, device), rng.derive(seed, "test"))
    return x0, initial_xt(degradation, x0, drawn, severity), drawn


def training_batches(prepared: Path, size: int, device: torch.device) -> Iterator[Tensor]:
    """The centre of every training image in `prepared`, float32 (N, C, size, size) in [-1, 1]."""
    images = data.load(prepared, "train")
    for part in batches(len(images), size):
        yield preprocessing.test_images(images, size, part, device)


def _tensor(indices: range, device: torch.device) -> Tensor:
    return torch.arange(indices.start, indices.stop, device=device)
