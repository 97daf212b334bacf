"""The Fréchet distance of two Gaussians: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

(Dowson and Landau, 1982; used for image features by Heusel et al., 2017.) What it is called depends on the features:
FID is the name only with those of the Inception network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and unbiased covariance (d, d) of n feature vectors, float64."""

    mean: Array
    covariance: Array
    n: int

    @classmethod
    def of(cls, features: npt.NDArray[np.floating]) -> Statistics:
        """Statistics of features (n, d), n at least 2."""
        values = np.asarray(features, dtype=np.float64)
        return cls(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The distance, never negative, also for singular covariances.

    tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, which are real and, up to
    rounding, not negative: no complex square root of a product is needed.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0)).sum()
    difference = a.mean - b.mean
    distance = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(distance, 0.0))
