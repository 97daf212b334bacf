"""The kernel distance KID (Bińkowski et al., 2018): squared maximum mean discrepancy under the kernel (x·y/d + 1)³.

Unlike the Fréchet distance it has an unbiased estimator, so that few images are compared fairly. It may be negative. It
is called KID only with the features of the Inception network. Own code: clean-fid draws the subsets from NumPy's global
generator, computes in the float32 of the features, and gives no spread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics.frechet import Array, Features
from coldbench.evaluation.metrics.intervals import PERCENTILES, Estimate


def kernel_distance(a: Features, b: Features, seed: int, subsets: int = 100, size: int = 1000) -> Estimate:
    """Mean of the estimator over `subsets` pairs of random subsets of a (n, d) and b (m, d), float32 or float64.

    A subset holds min(`size`, n, m) rows, each at most once. `low` and `high` are the 2.5 and 97.5 percentiles over the
    subsets, a spread rather than a confidence interval. They are NaN if every subset is the whole set. The estimator
    assumes that a and b are independent, so it is too low for restored images and their originals. ColdbenchError for
    fewer than 2 rows, different numbers of features, or a value not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ColdbenchError(f"features of the shapes {a.shape} and {b.shape} have no kernel distance")
    size = min(size, len(a), len(b))
    if size < 2 or subsets < 1:
        raise ColdbenchError(f"the kernel distance takes 2 images of each set and 1 subset, not {size} and {subsets}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ColdbenchError("features are not finite: they have no kernel distance")
    whole = size == len(a) == len(b)
    subsets = 1 if whole else subsets  # all are the same
    generator = np.random.default_rng(seed)
    drawn = [squared_discrepancy(_some(a, size, generator), _some(b, size, generator)) for _ in range(subsets)]
    low, high = (float("nan"),) * 2 if whole else np.percentile(drawn, PERCENTILES).tolist()
    return Estimate(float(np.mean(drawn)), low, high, len(a))


def squared_discrepancy(x: Array, y: Array) -> float:
    """Unbiased estimate of the squared MMD of x (n, d) and y (m, d), which compares no vector with itself."""
    between = _kernel(x, y).mean()
    return float(_within(x) + _within(y) - 2 * between)


def _within(x: Array) -> float:
    kernel = _kernel(x, x)
    n = len(x)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _kernel(x: Array, y: Array) -> Array:
    base = x @ y.T / x.shape[1] + 1
    cubed: Array = base * base * base  # NumPy computes a power element by element, ten times slower
    return cubed


def _some(features: Features, size: int, generator: np.random.Generator) -> Array:
    rows: npt.NDArray[np.int64] = generator.choice(len(features), size, replace=False)
    return features[rows].astype(np.float64)
