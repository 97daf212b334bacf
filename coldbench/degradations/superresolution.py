"""Super-resolution: t halvings, each enlarged back by nearest neighbour (paper, section 4.3; A.3).

Both reductions are linear per axis, and after the first halving every further one is the mean of 2 × 2 blocks of the
one before, so severity t is one matrix per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldbench.degradations.base import Matrix, SeparableLinear, check_numbers, choose
from coldbench.errors import ColdbenchError

BICUBIC_HALF = (-0.09375, 0.59375, 0.59375, -0.09375)
"""Weights of a factor-2 bicubic reduction without antialiasing (coefficient −0.75; protocol 2.4)."""


@dataclass(frozen=True)
class SuperResolution(SeparableLinear):
    """T halvings of the side; `reduce` is the first halving's filter.

    average: the mean of 2 × 2 pixels, which reproduces the printed Degraded cells (protocol `fitted`);
    bicubic: what the released code's routine of that name selects (protocol `released`).
    """

    size: int
    T: int
    reduce: str = "average"
    discrete: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 12))
        choose("reduce of degradation superresolution", self.reduce, ("average", "bicubic"))
        if self.size % 2**self.T:
            limit = (self.size & -self.size).bit_length() - 1
            raise ColdbenchError(
                f"degradation superresolution: {self.T} halvings need a side that is a multiple of {2**self.T}; "
                f"{self.size} px allows T ≤ {limit}"
            )
        if self.discrete:
            raise ColdbenchError(
                "degradation superresolution: no protocol truncates it to 8 bits; leave discrete false"
            )

    def matrices(self) -> Matrix:
        """A_0 … A_T, float64 (T+1, size, size)."""
        first = self._block_mean(1) if self.reduce == "average" else self._bicubic()
        later = [self._block_mean(t) @ first for t in range(2, self.T + 1)]
        return np.stack([np.eye(self.size), first, *later])

    def _block_mean(self, t: int) -> Matrix:
        side = 2**t
        return np.asarray(np.kron(np.eye(self.size // side), np.full((side, side), 1 / side)), dtype=np.float64)

    def _bicubic(self) -> Matrix:
        half = np.zeros((self.size // 2, self.size))
        for row in range(self.size // 2):
            for tap, weight in enumerate(BICUBIC_HALF):
                half[row, np.clip(2 * row - 1 + tap, 0, self.size - 1)] += weight  # the border pixel is repeated
        return np.repeat(half, 2, axis=0)
