"""PSNR from mean squared differences, for those who have no images at hand."""

from __future__ import annotations

import numpy as np

from coldbench.evaluation.metrics.intervals import Values

MOST_PSNR = 100.0
"""PSNR of equal images in dB, so that means over images stay finite."""


def psnr_of(mses: Values) -> Values:
    """−10 log₁₀ of mean squared differences of images in [0, 1], in dB, at most MOST_PSNR."""
    return -10 * np.log10(np.maximum(mses, 10 ** (-MOST_PSNR / 10)))
