"""SSIM and RMSE as the paper's evaluation computes them (protocol 4.2), per image and pooled, with intervals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.images import batches
from coldbench.core.plugins import metric
from coldbench.evaluation.metrics import intervals, ssim
from coldbench.evaluation.metrics.intervals import Estimate, Values
from coldbench.evaluation.metrics.psnr import MOST_PSNR, psnr_of

TOLERANCE = 1e-3
"""How far an original may leave its range, by rounding."""


def ssim_per_image(original: Tensor, other: Tensor, window: ssim.Window = ssim.PAPER) -> Values:
    """SSIM of each pair, float64 (N,): 11 × 11 Gaussian window, σ 1.5, no padding, mean over positions and channels.

    Images are float (N, C, H, W), nominally in [0, 1] and not clamped; H and W at least the window's width.
    ColdbenchError if the originals leave [1 − data_range, 1]: images in [-1, 1] need a window of that range.
    """
    least = 1 - window.data_range
    low, high = torch.stack(original.aminmax()).tolist() if original.numel() else (0.0, 1.0)
    if low < least - TOLERANCE or high > 1 + TOLERANCE:
        raise ColdbenchError(
            f"originals must lie in {least:g}…1, not {low:.3g}…{high:.3g}; "
            "images in [-1, 1] need Window(data_range=2.0)"
        )
    return ssim.ssim_per_image(original, other, window).double().cpu().numpy()


def mse_per_image(original: Tensor, other: Tensor) -> Values:
    """Mean squared difference of each pair over its channels and pixels, float64 (N,)."""
    return (original.double() - other.double()).square_().mean(dim=(1, 2, 3)).cpu().numpy()


def scores_per_image(original: Tensor, other: Tensor) -> tuple[Values, Values]:
    """SSIM and mean squared difference of each pair, in batches so that memory stays small."""
    with torch.inference_mode():
        pairs = [
            (ssim_per_image(original[part], other[part]), mse_per_image(original[part], other[part]))
            for part in batches(len(original), original.shape[-1])
        ]
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


@metric("ssim", higher_is_better=True, best=1.0)
def ssim_metric(originals: Tensor, images: Tensor) -> Tensor:
    """SSIM of each pair, (N,)."""
    return torch.from_numpy(ssim_per_image(originals, images))


@metric("rmse", higher_is_better=False, average="root_mean", best=0.0)
def squared_error(originals: Tensor, images: Tensor) -> Tensor:
    """Mean squared difference of each pair, (N,); RMSE is the root of its mean over images."""
    return torch.from_numpy(mse_per_image(originals, images))


@metric("psnr", higher_is_better=True, best=MOST_PSNR)
def psnr(originals: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, (N,); at most 100."""
    return torch.from_numpy(psnr_of(mse_per_image(originals, images)))


def mean_psnr(mses: Values, seed: int) -> Estimate:
    """Mean of the per-image PSNR, in dB."""
    return intervals.mean(psnr_of(mses), seed)


def pooled_ssim(ssims: Values, seed: int) -> Estimate:
    """The mean over images."""
    return intervals.mean(ssims, seed)


def pooled_rmse(mses: Values, seed: int) -> Estimate:
    """Root of the mean squared difference over all images together, as the paper reports it."""
    pooled = intervals.mean(mses, seed)
    value, low, high = np.sqrt([pooled.value, pooled.low, pooled.high]).tolist()
    return Estimate(value, low, high, pooled.n)


def mean_rmse(mses: Values, seed: int) -> Estimate:
    """Mean of the per-image roots; it is at most the pooled value."""
    return intervals.mean(np.sqrt(mses), seed)
