"""Inpainting: the product of t Gaussian masks around one point (paper, section 4.2; A.2).

Step i multiplies by 1 − exp(−d²/2σ_i²), d the distance from the mask's centre, so D(x, t) is one cumulative mask: a
window, placed by the image's own centre, of a table composed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from coldbench.degradations.base import Matrix, State, check_numbers, check_severity, tables
from coldbench.errors import ColdbenchError
from coldbench.seeds import integers


@dataclass(frozen=True)
class Inpainting:
    """T masks with standard deviations std, std + rate, … pixels (std, not variance: discrepancy D6).

    The centre's row and column are drawn uniformly from centre_low…centre_high (0-based pixels, both ends included),
    one centre per image for all steps; equal limits fix it. Masked pixels go to 0, mid-grey.
    """

    size: int
    T: int
    std: float
    rate: float
    centre_low: int
    centre_high: int
    discrete: bool = False
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        reach = 2 * self.size if isinstance(self.size, int) else 0
        check_numbers(self, size=(2, 4096), T=(1, 10_000), std=(0.01, 1000), rate=(0, 100))
        check_numbers(self, centre_low=(-reach, reach), centre_high=(-reach, reach))
        if self.centre_low > self.centre_high:
            raise ColdbenchError(
                f"degradation inpainting: centre_low {self.centre_low} lies above centre_high {self.centre_high}"
            )

    def matrices(self) -> Matrix:
        """Cumulative masks around one centre, float64 (T+1, side, side), as far as any window reaches."""
        offsets = np.arange(-self.centre_high, self.size - self.centre_low, dtype=np.float64)
        distance2 = offsets[:, None] ** 2 + offsets[None, :] ** 2
        stds = self.std + self.rate * np.arange(self.T)
        steps = 1 - np.exp(-distance2 / (2 * stds[:, None, None] ** 2))
        return np.concatenate([np.ones_like(steps[:1]), np.cumprod(steps, axis=0)])

    def draw(self, indices: Tensor, seed: int) -> State:
        """The mask's centre per image: `centre` int64 (N, 2), row and column."""
        return {"centre": integers(seed, "inpainting centre", indices, self.centre_low, self.centre_high, draws=2)}

    def mask(self, t: Tensor, state: State) -> Tensor:
        """The cumulative mask of each image, float32 (N, 1, size, size) in [0, 1]."""
        table = tables(self).on(t.device)
        pixel = torch.arange(self.size, device=t.device)
        rows, columns = (pixel - state["centre"][:, axis, None] + self.centre_high for axis in (0, 1))
        return table[t[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]

    def __call__(self, x0: Tensor, t: Tensor, state: State) -> Tensor:
        """x0 · mask; exactly x0 at t = 0."""
        check_severity(self, x0, t)
        return x0 * self.mask(t, state).to(x0.dtype)
