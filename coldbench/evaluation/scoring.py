"""What images are scored with: feature extractors, the originals, and the references that distances are taken to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.images import batches, to_unit_interval
from coldbench.data import preprocessing
from coldbench.evaluation.metrics import gabor, intervals, kernel
from coldbench.evaluation.metrics.intervals import Estimate
from coldbench.evaluation.metrics.reference import Reference, reference

Rows = list[dict[str, Any]]
Features = npt.NDArray[np.floating]


def row(name: str, method: str, metric: str, value: Estimate, split: str = "") -> dict[str, Any]:
    """A row of the table: what is measured, on what, and the estimate."""
    return {"set": name, "method": method, "metric": metric, "reference": split, **vars(value)}


@dataclass(frozen=True)
class Extractor:
    """Features under the name that a Fréchet distance on them has, and how many bootstrap draws it affords."""

    name: str
    features: Callable[[Tensor], Features]
    draws: int
    kernel: str = ""  # the name that a kernel distance on them has, if it has one


@dataclass(frozen=True)
class Scorer:
    """What all sets of a run are scored with."""

    experiment: Experiment
    prepared: Path
    cache: Path
    extractors: list[Extractor]
    device: torch.device

    def tests(self, n: int | None = None) -> Tensor:
        """The first n test images (None: all) in [0, 1]."""
        images = data.load(self.prepared, "test")
        return to_unit_interval(preprocessing.test_images(images, self.experiment.size, slice(n), self.device))

    def reference(self, extractor: Extractor, split: str, n: int | None = None) -> Reference:
        """The features of the first n images of a split (None: all), from the cache if they are there."""
        info, size = data.info(self.prepared), self.experiment.size
        images = data.load(self.prepared, split)[:n]
        about = {"features": extractor.name, "data": info["hash"], "split": split, "size": size, "n": len(images)}

        def parts() -> Iterator[Tensor]:
            for where in batches(len(images)):
                yield to_unit_interval(preprocessing.test_images(images, size, where, self.device))

        return reference(self.cache, about, parts, extractor.features)

    def resampling(self, extractor: Extractor, there: Reference, n: int | None) -> dict[str, Any]:
        """How the interval of a distance to `there` is drawn: n restored images with their originals, where all their
        features were kept (else there is no interval); a reference that is a set of its own (n None) is fixed."""
        if n is None:
            return {"draws": extractor.draws}
        kept = len(there.features) == n
        return {"draws": extractor.draws if kept else 0, "originals": there.features if kept else None}

    def distances(
        self, name: str, method: str, features: dict[str, Features], split: str, n: int | None = None
    ) -> Rows:
        """Fréchet and kernel distance of one method's features from those of a split: of its first n images, whose
        restorations they are, or of all (None), where they are generated ones."""
        rows: Rows = []
        seed = self.experiment.seed
        for extractor in self.extractors:
            mine = features[extractor.name]
            if not np.isfinite(mine).all():  # a trajectory that diverged is a result too, without a distance
                nothing = Estimate(math.nan, math.nan, math.nan, len(mine))
                rows += [row(name, method, m, nothing, split) for m in (extractor.name, extractor.kernel) if m]
                continue
            there = self.reference(extractor, split, n)
            value = intervals.frechet(mine, there.statistics, seed, **self.resampling(extractor, there, n))
            rows.append(row(name, method, extractor.name, value, split))
            if extractor.kernel:
                distance = kernel.kernel_distance(mine, there.features, seed)
                rows.append(row(name, method, extractor.kernel, distance, split))
        return rows


def extractors(protocols: Iterable[str], weights: Path | None, device: torch.device) -> list[Extractor]:
    """FD-Gabor's features, which are always there, and FID's under each of `protocols` with `weights`' files."""
    found = [Extractor(gabor.NAME, lambda x: gabor.features(x).cpu().numpy(), draws=200)]
    for protocol in protocols:
        from coldbench.evaluation.metrics import inception

        if weights is None:
            raise ColdbenchError(f"FID ({protocol}) needs the folder of the Inception weights")
        features = inception.extractor(protocol, weights, device)
        found.append(Extractor(f"fid_{protocol}", features, draws=20, kernel=f"kid_{protocol}"))
    return found
