"""SSIM and RMSE as the paper's evaluation computes them (protocol 4.2), per image and pooled, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench.metrics import ssim

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval from n images."""

    value: float
    low: float
    high: float
    n: int


def ssim_per_image(original: Tensor, other: Tensor, window: ssim.Window = ssim.PAPER) -> Values:
    """SSIM of each pair, float64 (N,): 11 × 11 Gaussian window, σ 1.5, no padding, mean over positions and channels.

    Images are float (N, C, H, W), nominally in [0, 1] and not clamped; H and W at least the window's width.
    """
    return ssim.ssim_per_image(original, other, window).double().cpu().numpy()


def mse_per_image(original: Tensor, other: Tensor) -> Values:
    """Mean squared difference of each pair over its channels and pixels, float64 (N,)."""
    return (original.double() - other.double()).square_().mean(dim=(1, 2, 3)).cpu().numpy()


def pooled_ssim(ssims: Values, seed: int) -> Estimate:
    """The mean over images."""
    return _bootstrap(ssims, seed)


def pooled_rmse(mses: Values, seed: int) -> Estimate:
    """Root of the mean squared difference over all images together: what the paper reports."""
    pooled = _bootstrap(mses, seed)
    value, low, high = np.sqrt([pooled.value, pooled.low, pooled.high]).tolist()
    return Estimate(value, low, high, pooled.n)


def mean_rmse(mses: Values, seed: int) -> Estimate:
    """Mean of the per-image roots; always at most the pooled value."""
    return _bootstrap(np.sqrt(mses), seed)


def _bootstrap(values: Values, seed: int, draws: int = 1000) -> Estimate:
    """Mean and its percentile interval over images drawn with replacement."""
    n = len(values)
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, n, n)].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), n)


def batches(n: int, size: int = 500) -> list[slice]:
    """Slices that cover 0…n−1."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def scores_per_image(original: Tensor, other: Tensor) -> tuple[Values, Values]:
    """SSIM and mean squared difference per image, in batches so that memory stays small."""
    with torch.inference_mode():
        pairs = [
            (ssim_per_image(original[b], other[b]), mse_per_image(original[b], other[b]))
            for b in batches(len(original))
        ]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
