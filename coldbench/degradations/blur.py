"""Gaussian blur: t small blurs one after the other, composed into one matrix per axis (paper, section 4.1; A.1, A.6).

A Gaussian kernel is an outer product and its padding acts on each axis alone, so the whole recursion, borders included,
is x ↦ A_t x A_tᵀ with A_t the product of t one-dimensional blur matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coldbench.core.errors import ColdbenchError
from coldbench.degradations.base import Matrix, SeparableLinear, check_numbers, choose

LARGEST_STD = 10_000.0
TAIL = 8  # standard deviations after which a Gaussian is nothing in float64


def gaussian_weights(kernel: int, std: float) -> Matrix:
    """Normalised weights exp(−j²/2σ²), j = −⌊k/2⌋…⌊k/2⌋, float64 (kernel,); truncated at the kernel's width."""
    offsets = np.arange(kernel) - kernel // 2
    weights = np.exp(-(offsets**2) / (2 * std**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class Blur(SeparableLinear):
    """T blurs with Gaussians, circular or reflect padding.

    Step i = 0…T−1 has a kernel of `kernel` + `kernel_rate`·i pixels, and a standard deviation in pixels by `schedule`:
    constant: std; linear: std + rate·i; exponential: std·exp(rate·i).

    `composition` (discrepancy D22): recursion, the default and what the released code does, applies the truncated
    kernels one after the other; kernel applies the one Gaussian with the sum of their variances, untruncated.
    `discrete` (protocol 2.1): severity T is the mean colour, and training inputs are 8-bit values, by `rounding`.
    """

    size: int
    T: int
    kernel: int
    std: float
    schedule: str = "constant"
    rate: float = 0.0
    padding: str = "circular"
    kernel_rate: int = 0
    composition: str = "recursion"
    quantized: bool = False
    rounding: str = "truncate"

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
        check_numbers(self, size=(2, 4096), T=(1, 10_000), kernel=(1, 255), std=(0.01, 1000), rate=(0, 10))
        check_numbers(self, kernel_rate=(0, 64))
        choose("schedule of degradation blur", self.schedule, ("constant", "linear", "exponential"))
        choose("padding of degradation blur", self.padding, ("circular", "reflect"))
        choose("composition of degradation blur", self.composition, ("recursion", "kernel"))
        choose("rounding of degradation blur", self.rounding, ("truncate", "nearest"))
        if self.kernel % 2 == 0:
            raise ColdbenchError(f"degradation blur: kernel must be odd, not {self.kernel}")
        if self.kernel_rate % 2:
            raise ColdbenchError(f"degradation blur: kernel_rate must be even, not {self.kernel_rate}")
        if self.rate * (self.T - 1) > (20 if self.schedule == "exponential" else 1e6) or self.stds()[-1] > LARGEST_STD:
            raise ColdbenchError(
                f"degradation blur: the standard deviation of step {self.T} must be at most {LARGEST_STD:g} pixels; "
                f"lower rate {self.rate:g} or T {self.T}"
            )
        widest = int(self.kernels()[-1])
        if widest // 2 >= self.size:
            raise ColdbenchError(
                f"degradation blur: kernel {widest} needs images wider than {widest // 2} px; "
                f"{self.size} px allow kernels up to {2 * self.size - 1}"
            )

    @property
    def keeps_mean(self) -> bool:
        """Circular padding hands every pixel on with a total weight of 1; reflection favours the inside."""
        return self.padding == "circular"

    @property
    def quantized_start(self) -> bool:
        """The released sampler starts from the plain mean (protocol 2.1)."""
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
            result[self.T] = result[self.T].mean(axis=0)  # the mean of what A x Aᵀ would have been, everywhere
        return result

    def _one_step(self, kernel: int, std: float) -> Matrix:
        reach = kernel // 2
        # source: which pixel each padded place shows
        source = np.pad(np.arange(self.size), reach, mode="wrap" if self.padding == "circular" else "reflect")
        step = np.zeros((self.size, self.size))
        for offset, weight in enumerate(gaussian_weights(kernel, std)):
            step[np.arange(self.size), source[offset : offset + self.size]] += weight  # each row once per offset
        return step
