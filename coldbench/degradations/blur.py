"""Gaussian blur: t blurs in sequence, composed into one matrix per axis (paper, section 4.1; A.1, A.6).

A Gaussian kernel is an outer product, and padding acts on each axis separately. So the whole recursion, borders
included, is x ↦ A_t x A_tᵀ, where A_t is the product of t one-dimensional blur matrices.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from coldbench.core.plugins import degradation
from coldbench.degradations.base import STRICT, Matrix, Rounding, SeparableLinear, Severity, Size

LARGEST_STD = 10_000.0
TAIL = 8  # standard deviations after which a Gaussian vanishes in float64


def gaussian_weights(kernel: int, std: float) -> Matrix:
    """Weights exp(−j²/2σ²), j = −⌊k/2⌋…⌊k/2⌋, normalised to the sum 1, float64 (kernel,)."""
    offsets = np.arange(kernel) - kernel // 2
    weights = np.exp(-(offsets**2) / (2 * std**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@degradation("blur")
@dataclass(frozen=True, config=STRICT)
class Blur(SeparableLinear):
    """T Gaussian blurs with circular or reflect padding.

    Step i = 0…T−1 has a kernel of `kernel` + `kernel_rate`·i pixels. Its standard deviation in pixels follows
    `schedule`: std (constant), std + rate·i (linear) or std·exp(rate·i) (exponential).

    `composition` (discrepancy D22): recursion, as released, applies the truncated kernels in sequence; kernel applies
    one untruncated Gaussian with the sum of their variances. `quantized` (protocol 2.1): severity T is the mean colour,
    and the network is trained on 8-bit values.
    """

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""
    kernel: Annotated[int, Field(ge=1, le=255)]
    """Width of the first step's kernel in pixels, an odd number."""
    std: Annotated[float, Field(ge=0.01, le=1000)]
    """Standard deviation of the first step in pixels."""
    schedule: Literal["constant", "linear", "exponential"] = "constant"
    """How the standard deviation grows with step i: std, std + rate·i, or std·exp(rate·i)."""
    rate: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Growth of the standard deviation per step: in pixels if linear, of its logarithm if exponential."""
    padding: Literal["circular", "reflect"] = "circular"
    """What stands beyond the border: the opposite side, or the mirrored image."""
    kernel_rate: Annotated[int, Field(ge=0, le=64)] = 0
    """Growth of the kernel per step in pixels, an even number."""
    composition: Literal["recursion", "kernel"] = "recursion"
    """Whether truncated kernels follow each other, or one untruncated Gaussian has their summed variance (D22)."""
    quantized: bool = False
    """Whether the network is trained on 8-bit values and severity T is the mean colour."""
    rounding: Rounding = "truncate"
    """How values are rounded to 8 bits where `quantized` is true (D18)."""

    test_params = (
        {"T": 5, "kernel": 11, "std": 7.0},
        {"T": 4, "kernel": 31, "std": 6.0, "padding": "reflect"},  # the widest kernel that fits 16 px
        {"T": 6, "kernel": 5, "std": 0.35, "schedule": "linear", "rate": 0.2, "padding": "reflect"},
        {"T": 6, "kernel": 31, "std": 0.5, "schedule": "exponential", "rate": 0.3},
        {"T": 4, "kernel": 3, "kernel_rate": 4, "std": 1.0, "schedule": "linear", "rate": 0.5},
        {"T": 5, "kernel": 5, "std": 1.5, "padding": "reflect", "composition": "kernel"},
        {"T": 6, "kernel": 9, "std": 1.0, "schedule": "exponential", "rate": 0.2, "quantized": True},
        {"T": 4, "kernel": 3, "std": 0.7, "padding": "reflect", "quantized": True, "rounding": "nearest"},
    )

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")
        if self.kernel_rate % 2:
            raise ValueError(f"kernel_rate must be even, not {self.kernel_rate}")
        # The first test keeps the exponential of the second from overflowing.
        growth = self.rate * (self.T - 1)
        if (self.schedule == "exponential" and growth > 20) or self.stds()[-1] > LARGEST_STD:
            raise ValueError(
                f"the standard deviation of step {self.T} must be at most {LARGEST_STD:g} pixels; "
                f"lower rate {self.rate:g} or T {self.T}"
            )
        widest = int(self.kernels()[-1])
        if widest // 2 >= self.size:
            raise ValueError(
                f"kernel {widest} needs images wider than {widest // 2} px; "
                f"{self.size} px allow kernels up to {2 * self.size - 1}"
            )

    @property
    def keeps_mean(self) -> bool:
        """Only circular padding gives every pixel a total weight of 1; reflection weighs inner pixels more."""
        return self.padding == "circular"

    @property
    def quantized_start(self) -> bool:
        """The released sampler starts from the unrounded mean (protocol 2.1)."""
        return False

    def kernels(self) -> Matrix:
        """Width of each step's kernel in pixels, float64 (T,)."""
        return self.kernel + self.kernel_rate * np.arange(self.T, dtype=np.float64)

    def stds(self) -> Matrix:
        """Standard deviation of each step in pixels, float64 (T,)."""
        i = np.arange(self.T, dtype=np.float64)
        growth = {"constant": self.std + 0 * i, "linear": self.std + self.rate * i}
        return growth.get(self.schedule, self.std * np.exp(self.rate * i))

    def operators(self) -> Matrix:
        """A_0 … A_T, float64 (T+1, size, size)."""
        result = np.empty((self.T + 1, self.size, self.size))
        result[0] = np.eye(self.size)
        totals = np.sqrt(np.cumsum(self.stds() ** 2))
        for i, (kernel, std, total) in enumerate(zip(self.kernels(), self.stds(), totals, strict=True)):
            if self.composition == "recursion":
                result[i + 1] = self._one_step(int(kernel), float(std)) @ result[i]
            else:
                result[i + 1] = self._one_step(2 * math.ceil(TAIL * total) + 1, float(total))
        if self.quantized:
            result[self.T] = result[self.T].mean(axis=0)  # A x Aᵀ is then the mean of the blurred image everywhere
        return result

    def _one_step(self, kernel: int, std: float) -> Matrix:
        """The matrix of one blur along one axis, float64 (size, size)."""
        reach = kernel // 2
        # The index of the pixel that stands at each position of the padded axis.
        source = np.pad(np.arange(self.size), reach, mode="wrap" if self.padding == "circular" else "reflect")
        step = np.zeros((self.size, self.size))
        for offset, weight in enumerate(gaussian_weights(kernel, std)):
            step[np.arange(self.size), source[offset : offset + self.size]] += weight  # one element per row
        return step
