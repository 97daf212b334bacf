"""Inpainting: the product of t Gaussian masks around one point (paper, section 4.2; A.2), also for generation (5.3).

Step i multiplies by 1 − exp(−d²/2σ_i²), d the distance from the mask's centre, so D(x, t) is one cumulative mask: a
window, placed by the image's own centre, of a table composed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.rng import integers, uniform
from coldbench.degradations.base import Drawn, Matrix, Precomputed, check_numbers, choose


def cumulative_masks(offsets: Matrix, stds: Matrix) -> Matrix:
    """Products of the first 0…T masks 1 − exp(−d²/2σ²), float64 (T+1, n, n), at distances given per axis (n,)."""
    distance2 = offsets[:, None] ** 2 + offsets[None, :] ** 2
    result = np.ones((len(stds) + 1, len(offsets), len(offsets)))
    for i, std in enumerate(stds):
        result[i + 1] = result[i] * (1 - np.exp(-distance2 / (2 * std**2)))
    return result


@dataclass(frozen=True)
class Inpainting(Precomputed):
    """T masks of growing width around one centre per image; masked pixels go to `fill` (0: mid-grey).

    The width of step i is std + rate·i pixels: a standard deviation (`width`: std, as released and as the printed
    numbers have it) or, as the paper's word for the same numbers has it, a variance (discrepancy D6). The centre's row
    and column are drawn uniformly from centre_low…centre_high (0-based pixels, both included); equal limits fix it.
    `discrete` (protocol 2.2): training inputs and x_T are 8-bit values, by `rounding`.
    """

    size: int
    T: int
    std: float
    rate: float
    centre_low: int
    centre_high: int
    width: str = "std"
    fill: float = 0.0
    quantized: bool = False
    rounding: str = "truncate"

    test_params = (
        {"T": 6, "std": 1.1, "rate": 0.4, "centre_low": -1, "centre_high": 15},
        {"T": 6, "std": 1.1, "rate": 0.4, "centre_low": 3, "centre_high": 12, "quantized": True},
        {"T": 3, "std": 4.0, "rate": 0.0, "centre_low": 7, "centre_high": 7},
        {"T": 5, "std": 1.0, "rate": 2.0, "centre_low": 0, "centre_high": 15, "width": "variance"},
        {"T": 4, "std": 2.0, "rate": 0.5, "centre_low": 0, "centre_high": 15, "fill": -1.0, "quantized": True},
    )

    def __post_init__(self) -> None:
        reach = 2 * self.size if isinstance(self.size, int) else 0
        check_numbers(self, size=(2, 4096), T=(1, 10_000), std=(0.01, 1000), rate=(0, 100), fill=(-1, 1))
        check_numbers(self, centre_low=(-reach, reach), centre_high=(-reach, reach))
        choose("width of degradation inpainting", self.width, ("std", "variance"))
        choose("rounding of degradation inpainting", self.rounding, ("truncate", "nearest"))
        if self.centre_low > self.centre_high:
            raise ColdbenchError(
                f"degradation inpainting: centre_low {self.centre_low} lies above centre_high {self.centre_high}"
            )

    @property
    def linear(self) -> bool:
        """Filling with anything but 0 adds a constant."""
        return self.fill == 0

    def stds(self) -> Matrix:
        """Standard deviation of each step's mask in pixels, float64 (T,)."""
        widths = self.std + self.rate * np.arange(self.T, dtype=np.float64)
        return widths if self.width == "std" else np.sqrt(widths)

    def operators(self) -> Matrix:
        """Cumulative masks around one centre, float64 (T+1, side, side), as far as any window reaches."""
        return cumulative_masks(np.arange(-self.centre_high, self.size - self.centre_low, dtype=float), self.stds())

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The mask's centre per image: `centre` int64 (N, 2), row and column."""
        return {"centre": integers(seed, "inpainting centre", indices, self.centre_low, self.centre_high, draws=2)}

    def mask(self, t: Tensor, drawn: Drawn) -> Tensor:
        """The cumulative mask of each image, float32 (N, 1, size, size) in [0, 1]."""
        table = self.operators_on(t.device)
        pixel = torch.arange(self.size, device=t.device)
        rows, columns = (pixel - drawn["centre"][:, axis, None] + self.centre_high for axis in (0, 1))
        return table[t[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """x0 · mask + fill · (1 − mask)."""
        mask = self.mask(t, drawn).to(x0.dtype)
        return x0 * mask if self.fill == 0 else x0 * mask + self.fill * (1 - mask)


@dataclass(frozen=True)
class InpaintingGeneration(Precomputed):
    """x0 gives way to one colour per image: A_t · x0 + (1 − A_t) · colour (paper, section 5.3; protocol 2.3).

    With K_j the product of j centred masks of standard deviations std, std + rate, … pixels, `order` (discrepancy D17)
    inwards, as the README's command and the paper's pictures have it: A_t = 1 − K_{T−t}, the colour comes from the
    border and at T is everywhere; outwards, as the paper's formula has it: A_t = K_t, a hole that grows in the middle.
    Colours are uniform per channel on colour_low…colour_high.
    """

    size: int
    T: int
    std: float
    rate: float
    order: str = "inwards"
    colour_low: float = -0.5
    colour_high: float = 0.5

    name = "inpainting_generation"
    test_params = (
        {"T": 8, "std": 0.5, "rate": 0.6},
        {"T": 6, "std": 1.5, "rate": 0.5, "order": "outwards", "colour_low": -1.0, "colour_high": 1.0},
    )

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 10_000), std=(0.01, 1000), rate=(0, 100))
        check_numbers(self, colour_low=(-1, 1), colour_high=(-1, 1))
        choose("order of degradation inpainting_generation", self.order, ("inwards", "outwards"))
        if self.colour_low > self.colour_high:
            raise ColdbenchError(
                f"degradation inpainting_generation: colour_low {self.colour_low} lies above "
                f"colour_high {self.colour_high}"
            )

    def stds(self) -> Matrix:
        """Standard deviation of each mask in pixels, float64 (T,)."""
        return self.std + self.rate * np.arange(self.T, dtype=np.float64)

    def operators(self) -> Matrix:
        """A_0 … A_T, the weight of the image, float64 (T+1, size, size)."""
        masks = cumulative_masks(np.arange(self.size, dtype=np.float64) - (self.size / 2 - 1), self.stds())
        if self.order == "outwards":
            return masks
        weights = 1 - masks[::-1]
        weights[0] = 1  # D(x, 0) = x: the formula's 1 − K_T is 1 only nearly
        return weights

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The colour per image: `colour` float32 (N, 3)."""
        share = uniform(seed, "inpainting colour", indices, 3)
        return {"colour": (self.colour_low + (self.colour_high - self.colour_low) * share).to(torch.float32)}

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """A_t · x0 + (1 − A_t) · colour; a picture of one channel takes the first of the colour."""
        weight = self.operators_on(x0.device)[t][:, None].to(x0.dtype)
        return weight * x0 + (1 - weight) * drawn["colour"][:, : x0.shape[1], None, None].to(x0.dtype)
