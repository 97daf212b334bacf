"""Gaussian blur: t small blurs one after the other, composed into one matrix per axis (paper, section 4.1; A.1, A.6).

A Gaussian kernel is an outer product and its padding acts on each axis alone, so the whole recursion, borders included,
is x ↦ A_t x A_tᵀ with A_t the product of t one-dimensional blur matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldbench.degradations.base import Matrix, SeparableLinear, check_numbers, choose
from coldbench.errors import ColdbenchError


def gaussian_weights(kernel: int, std: float) -> Matrix:
    """Normalised weights exp(−j²/2σ²), j = −⌊k/2⌋…⌊k/2⌋, float64 (kernel,); truncated at the kernel's width."""
    offsets = np.arange(kernel) - kernel // 2
    weights = np.exp(-(offsets**2) / (2 * std**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class Blur(SeparableLinear):
    """T blurs with a `kernel`-wide Gaussian, circular or reflect padding.

    The standard deviation of step i = 0…T−1, in pixels, follows `schedule`:
    constant: std; linear: std + rate·i; exponential: std·exp(rate·i).
    """

    size: int
    T: int
    kernel: int
    std: float
    schedule: str = "constant"
    rate: float = 0.0
    padding: str = "circular"
    discrete: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 10_000), kernel=(3, 255), std=(0.01, 1000), rate=(0, 10))
        choose("schedule of degradation blur", self.schedule, ("constant", "linear", "exponential"))
        choose("padding of degradation blur", self.padding, ("circular", "reflect"))
        if self.kernel % 2 == 0:
            raise ColdbenchError(f"degradation blur: kernel must be odd, not {self.kernel}")
        if self.kernel // 2 >= self.size:
            raise ColdbenchError(
                f"degradation blur: kernel {self.kernel} needs images wider than {self.kernel // 2} px"
            )
        if self.discrete:
            raise ColdbenchError("degradation blur: discrete is not available yet; leave it false")

    def stds(self) -> Matrix:
        """Standard deviation of each step in pixels, float64 (T,)."""
        i = np.arange(self.T, dtype=np.float64)
        growth = {"constant": self.std + 0 * i, "linear": self.std + self.rate * i}
        return growth.get(self.schedule, self.std * np.exp(self.rate * i))

    def matrices(self) -> Matrix:
        """A_0 … A_T: products of the one-step matrices, float64 (T+1, size, size)."""
        result = np.empty((self.T + 1, self.size, self.size))
        result[0] = np.eye(self.size)
        for i, std in enumerate(self.stds()):
            result[i + 1] = self._one_step(float(std)) @ result[i]
        return result

    def _one_step(self, std: float) -> Matrix:
        pixels, reach = np.arange(self.size), self.kernel // 2
        wrap = self.padding == "circular"  # source: which pixel each padded place shows
        source = np.pad(pixels, reach, mode="wrap") if wrap else np.pad(pixels, reach, mode="reflect")
        step = np.zeros((self.size, self.size))
        for offset, weight in enumerate(gaussian_weights(self.kernel, std)):
            np.add.at(step, (np.arange(self.size), source[offset : offset + self.size]), weight)
        return step
