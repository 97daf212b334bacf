"""The Fréchet distance of two Gaussians: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

Dowson and Landau (1982); Heusel et al. (2017) use it for image features. It is called FID only with the features of the
Inception network. Own code: in 2,048 dimensions, SciPy's square root of the matrix product takes six times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from coldbench.core.errors import ColdbenchError

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating]

BLOCK = 4096
"""Rows that are centred at a time, so that memory holds no second copy of all features."""


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and unbiased covariance (d, d) of n feature vectors, float64."""

    mean: Array
    covariance: Array
    n: int

    @classmethod
    def of(cls, features: Features) -> Statistics:
        """Statistics of finite features (n, d), float32 or float64, n at least 2; otherwise ColdbenchError."""
        moments = Moments(features.shape[-1])
        moments.add(features)
        return moments.statistics()

    @property
    def singular(self) -> bool:
        """Whether n ≤ d, so that the covariance lacks full rank. For FID, this is the case below 2,049 images."""
        return self.n <= len(self.mean)


class Moments:
    """Mean (d,) and scatter about it (d, d), float64, of feature vectors that arrive in parts of any size.

    Each part is centred by its own mean and merged by the update of Chan, Golub and LeVeque (1983). The update
    subtracts no large sums of squares, so that a mean far larger than the spread costs no digits.
    """

    def __init__(self, d: int) -> None:
        self.n = 0
        self.mean: Array = np.zeros(d)
        self.scatter: Array = np.zeros((d, d))

    def add(self, features: Features) -> None:
        """Add features (n, d), n ≥ 0, float32 or float64; ColdbenchError for another shape or a value not finite."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ColdbenchError(f"features have the shape {features.shape}, not (n, {len(self.mean)})")
        for start in range(0, len(features), BLOCK):
            self._merge(features[start : start + BLOCK].astype(np.float64))

    def _merge(self, part: Array) -> None:
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            raise ColdbenchError(f"features of image {self.n + int(finite.argmin())} are not finite")
        mean = part.mean(axis=0)
        centred = part - mean
        shift = mean - self.mean
        total = self.n + len(part)
        self.scatter += centred.T @ centred + np.outer(shift, shift) * (self.n * len(part) / total)
        self.mean += shift * (len(part) / total)
        self.n = total

    def statistics(self) -> Statistics:
        """Mean and unbiased covariance of the vectors added so far; ColdbenchError for fewer than 2."""
        if self.n < 2:
            raise ColdbenchError(f"features of {self.n} image{'s' * (self.n != 1)} have no covariance: it takes 2")
        return Statistics(self.mean.copy(), self.scatter / (self.n - 1), self.n)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The distance, never negative, also for singular covariances.

    tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of the symmetric FᵀΣ₂F, with Σ₁ = FFᵀ. They are real and, up
    to rounding, not negative. ColdbenchError if a value is not finite, or if the numbers of features differ.
    """
    if len(a.mean) != len(b.mean):
        raise ColdbenchError(f"statistics of {len(a.mean)} and {len(b.mean)} features have no distance")
    if not all(np.isfinite(part).all() for part in (a.mean, a.covariance, b.mean, b.covariance)):
        raise ColdbenchError("statistics of features are not finite: they have no Fréchet distance")
    fewer, more = sorted((a, b), key=lambda statistics: statistics.n)  # the lower rank, the smaller eigenproblem
    factor = _factor(fewer.covariance)
    cross = np.sqrt(np.linalg.eigvalsh(factor.T @ more.covariance @ factor).clip(min=0)).sum()
    difference = a.mean - b.mean
    distance = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(distance, 0.0))


def _factor(covariance: Array) -> Array:
    """F (d, rank) with FFᵀ = Σ up to rounding: the pivoted Cholesky factor, which exists for a singular Σ too."""
    lower, pivots, rank, _ = lapack.dpstrf(covariance, lower=1)
    factor: Array = np.zeros((len(covariance), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return factor
