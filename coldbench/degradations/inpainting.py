"""Inpainting: the product of t Gaussian masks around one point (paper, section 4.2; A.2), also for generation (5.3).

Step i multiplies by 1 − exp(−d²/2σ_i²), where d is the distance from the mask's centre. So D(x, t) multiplies by one
cumulative mask. The masks around one centre are computed once, and each image takes the window that fits its centre.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from coldbench.core.plugins import degradation
from coldbench.core.rng import integers, uniform
from coldbench.degradations.base import STRICT, Drawn, Matrix, Precomputed, Rounding, Severity, Size

Std = Annotated[float, Field(ge=0.01, le=1000)]
Rate = Annotated[float, Field(ge=0, le=100)]
Level = Annotated[float, Field(ge=-1, le=1)]


def cumulative_masks(offsets: Matrix, stds: Matrix) -> Matrix:
    """Products of the first 0…T masks 1 − exp(−d²/2σ²), float64 (T+1, n, n), for the distances per axis (n,)."""
    distance2 = offsets[:, None] ** 2 + offsets[None, :] ** 2
    result = np.ones((len(stds) + 1, len(offsets), len(offsets)))
    for i, std in enumerate(stds):
        result[i + 1] = result[i] * (1 - np.exp(-distance2 / (2 * std**2)))
    return result


@degradation("inpainting")
@dataclass(frozen=True, config=STRICT)
class Inpainting(Precomputed):
    """T masks of growing width around one centre per image; masked pixels approach `fill` (0: mid-grey).

    Step i has the width std + rate·i. With `width` std this is the standard deviation in pixels, as released and as the
    printed numbers confirm; with variance it is the variance, as the paper writes (discrepancy D6). Row and column of
    the centre are drawn uniformly from centre_low…centre_high (0-based pixels, both included); equal limits fix it.
    `quantized` (protocol 2.2): the network is trained on 8-bit values, and x_T is rounded too.
    """

    orders = {"centre": "row, column"}  # noqa: RUF012 (a constant of the class)

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""
    std: Std
    """Width of the first step's mask in pixels."""
    rate: Rate
    """Growth of the mask's width per step in pixels."""
    centre_low: int
    """Smallest row and column of the mask's centre in pixels, counted from 0; at most twice the size beyond it."""
    centre_high: int
    """Largest row and column of the mask's centre in pixels; equal to `centre_low`, it fixes the centre."""
    width: Literal["std", "variance"] = "std"
    """Whether the width is the standard deviation of the mask, or its variance (D6)."""
    fill: Level = 0.0
    """Value in [-1, 1] that masked pixels approach; 0 is mid-grey."""
    quantized: bool = False
    """Whether the network is trained on 8-bit values and x_T is rounded too."""
    rounding: Rounding = "truncate"
    """How values are rounded to 8 bits where `quantized` is true (D18)."""

    test_params = (
        {"T": 6, "std": 1.1, "rate": 0.4, "centre_low": -1, "centre_high": 15},
        {"T": 6, "std": 1.1, "rate": 0.4, "centre_low": 3, "centre_high": 12, "quantized": True},
        {"T": 3, "std": 4.0, "rate": 0.0, "centre_low": 7, "centre_high": 7},
        {"T": 5, "std": 1.0, "rate": 2.0, "centre_low": 0, "centre_high": 15, "width": "variance"},
        {"T": 4, "std": 2.0, "rate": 0.5, "centre_low": 0, "centre_high": 15, "fill": -1.0, "quantized": True},
    )

    def __post_init__(self) -> None:
        reach = 2 * self.size
        for key in ("centre_low", "centre_high"):
            if abs(getattr(self, key)) > reach:
                raise ValueError(f"{key} must be a whole number in {-reach}…{reach}, not {getattr(self, key)}")
        if self.centre_low > self.centre_high:
            raise ValueError(f"centre_low {self.centre_low} lies above centre_high {self.centre_high}")

    @property
    def draws(self) -> bool:
        """Equal limits leave no centre to draw."""
        return self.centre_low < self.centre_high

    @property
    def linear(self) -> bool:
        """A `fill` other than 0 adds a constant."""
        return self.fill == 0

    def stds(self) -> Matrix:
        """Standard deviation of each step's mask in pixels, float64 (T,)."""
        widths = self.std + self.rate * np.arange(self.T, dtype=np.float64)
        return widths if self.width == "std" else np.sqrt(widths)

    def operators(self) -> Matrix:
        """Cumulative masks around one centre, float64 (T+1, side, side), large enough for the window of any image."""
        return cumulative_masks(np.arange(-self.centre_high, self.size - self.centre_low, dtype=float), self.stds())

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The centre of each image's mask: `centre` int64 (N, 2), row and column."""
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


@degradation("inpainting_generation")
@dataclass(frozen=True, config=STRICT)
class InpaintingGeneration(Precomputed):
    """One colour per image replaces x0: A_t · x0 + (1 − A_t) · colour (paper, section 5.3; protocol 2.3).

    K_j is the product of j centred masks with standard deviations std, std + rate, … pixels. `order` (discrepancy D17):
    inwards is A_t = 1 − K_{T−t}, as in the README's command and the paper's figures: the colour enters from the border
    and covers everything at T. outwards is A_t = K_t, the paper's formula: a hole grows from the middle. Colours are
    uniform per channel in colour_low…colour_high.
    """

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""
    std: Std
    """Standard deviation of the first mask in pixels."""
    rate: Rate
    """Growth of the mask's standard deviation per step in pixels."""
    order: Literal["inwards", "outwards"] = "inwards"
    """Whether the colour enters from the border and covers everything at T, or grows as a hole in the middle (D17)."""
    colour_low: Level = -0.5
    """Smallest value of a channel of the colour, in [-1, 1]."""
    colour_high: Level = 0.5
    """Largest value of a channel of the colour, in [-1, 1]."""

    name = "inpainting_generation"
    orders = {"colour": "red, green, blue"}  # noqa: RUF012 (a constant of the class)
    test_params = (
        {"T": 8, "std": 0.5, "rate": 0.6},
        {"T": 6, "std": 1.5, "rate": 0.5, "order": "outwards", "colour_low": -1.0, "colour_high": 1.0},
    )

    def __post_init__(self) -> None:
        if self.colour_low > self.colour_high:
            raise ValueError(f"colour_low {self.colour_low} lies above colour_high {self.colour_high}")

    def stds(self) -> Matrix:
        """Standard deviation of each mask in pixels, float64 (T,)."""
        return self.std + self.rate * np.arange(self.T, dtype=np.float64)

    def operators(self) -> Matrix:
        """A_0 … A_T, the weight of the image, float64 (T+1, size, size)."""
        masks = cumulative_masks(np.arange(self.size, dtype=np.float64) - (self.size / 2 - 1), self.stds())
        if self.order == "outwards":
            return masks
        weights = 1 - masks[::-1]
        weights[0] = 1  # D(x, 0) is x, but 1 − K_T is only nearly 1
        return weights

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The colour of each image: `colour` float32 (N, 3)."""
        share = uniform(seed, "inpainting colour", indices, 3)
        return {"colour": (self.colour_low + (self.colour_high - self.colour_low) * share).to(torch.float32)}

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """A_t · x0 + (1 − A_t) · colour; images of one channel use the first channel of the colour."""
        weight = self.operators_on(x0.device)[t][:, None].to(x0.dtype)
        return weight * x0 + (1 - weight) * drawn["colour"][:, : x0.shape[1], None, None].to(x0.dtype)
