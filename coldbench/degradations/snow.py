"""Snow, after the corruption of ImageNet-C (paper, section 4.4 and appendix A.5; protocol 2.5).

A seed layer of normal numbers, drawn once per image, is enlarged into flakes. Severity t selects the flakes above a
threshold that falls with t, blurs them along one direction over a length that grows with t, and adds them to the image,
upright and rotated by 180°. Each severity is computed from the flakes alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from coldbench.core.plugins import degradation
from coldbench.core.rng import normal, uniform
from coldbench.degradations.base import STRICT, Drawn, Matrix, Precomputed, Severity, Size
from coldbench.degradations.blur import gaussian_weights

LUMA = (0.299, 0.587, 0.114)
ORDERS = {"linear": 1, "spline": 3}


@dataclasses.dataclass(frozen=True)
class Level:
    """The amount of snow. A pair holds the values at severity 1 and at severity T; those between are linear."""

    mean: float  # of the seed layer
    std: float
    zoom: float  # the enlargement of the seed layer
    kernel: int  # pixels of the motion blur
    threshold: tuple[float, float]
    motion: tuple[float, float]  # standard deviation of the motion blur, pixels
    brightness: tuple[float, float]  # share of the image that is not brightened


LEVELS = {
    1: Level(0.1, 0.3, 3.0, 5, (0.7, 0.3), (0.5, 5.0), (0.95, 0.7)),
    2: Level(0.55, 0.3, 2.5, 11, (1.15, 0.7), (0.05, 12.0), (0.95, 0.55)),
    3: Level(0.55, 0.3, 2.5, 11, (1.15, 0.7), (0.05, 16.0), (0.95, 0.4)),  # the paper's CIFAR-10
    4: Level(0.55, 0.3, 2.5, 11, (1.15, 0.55), (0.05, 20.0), (0.95, 0.3)),  # the paper's CelebA
}


@degradation("snow")
@dataclass(frozen=True, config=STRICT)
class Snow(Precomputed):
    """clip(x + S_t + S_t rotated by 180°) in [0, 1], where S_t is the snow of severity t at one of four LEVELS.

    `fix_brightness`: true adds snow alone, as in the paper; false brightens the image first, as ImageNet-C does.
    `shared` consecutive images have one pattern (discrepancy D14): 1 follows the paper's prose; the released code uses
    one pattern per batch, and 32 is its training batch.
    `crop` of the seed layer and its enlargement by `zoom`, linear or cubic spline: the released code has centre and
    linear, the paper's prose has corner and spline. (The prose also drops a flake exactly at the threshold, which the
    released code leaves; this has no option, because no normal number equals it.)
    """

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""
    level: Annotated[int, Field(ge=1, le=4)]
    """Amount of snow; the paper's CIFAR-10 has 3 and its CelebA 4."""
    fix_brightness: bool = True
    """Whether snow alone is added; false brightens the image first, as ImageNet-C does."""
    shared: Annotated[int, Field(ge=1, le=10**9)] = 32
    """Number of consecutive images that have one pattern (D14)."""
    crop: Literal["centre", "corner"] = "centre"
    """Part of the seed layer that is enlarged into flakes."""
    zoom: Literal["linear", "spline"] = "linear"
    """Interpolation that enlarges the seed layer: linear, or cubic spline."""

    test_params = (
        {"T": 9, "level": 3},
        {"T": 5, "level": 1, "fix_brightness": False, "shared": 1},
        {"T": 5, "level": 4, "shared": 7, "crop": "corner", "zoom": "spline"},
        {"T": 1, "level": 2, "fix_brightness": False},
    )

    @property
    def constants(self) -> Level:
        """The constants of `level`."""
        return LEVELS[self.level]

    def operators(self) -> Matrix:
        """Motion blur along a row at severities 0…T, zero outside the image: float64 (T+1, size, size)."""
        kernel = self.constants.kernel
        stds = np.concatenate([[1.0], np.linspace(*self.constants.motion, self.T)])  # severity 0 is unused
        offset = np.arange(self.size)[:, None] - np.arange(self.size)[None, :] + kernel // 2
        inside = (offset >= 0) & (offset < kernel)
        weights = np.stack([gaussian_weights(kernel, float(std)) for std in stds])
        return np.where(inside, weights[:, np.where(inside, offset, 0)], 0.0)

    def enlarge(self, seeds: Tensor) -> Tensor:
        """Flakes from seed layers, float64 (N, size, size): a part of each, enlarged to the full size."""
        part = math.ceil(self.size / self.constants.zoom)
        first = (self.size - part) // 2 if self.crop == "centre" else 0
        # Spline interpolation is linear along each axis, so the enlarged identity is its matrix.
        from scipy import ndimage  # a third of a second, which every process would pay

        matrix = ndimage.zoom(np.eye(part), (self.constants.zoom, 1), order=ORDERS[self.zoom])
        trim = (len(matrix) - self.size) // 2
        along = torch.from_numpy(matrix[trim : trim + self.size]).to(seeds.device)
        cut = seeds[:, first : first + part, first : first + part]
        flakes = torch.empty_like(seeds)
        # One by one, because a batched product may sum in another order for another N.
        for one, layer in zip(flakes, cut.contiguous(), strict=True):
            one[:] = along @ layer @ along.T
        return flakes

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """`flakes` float64 (N, size, size) and `vertical` bool (N,), the direction of the motion blur."""
        groups, member = torch.unique(indices // self.shared, return_inverse=True)
        layer = normal(seed, "snow seed layer", groups, self.size**2).reshape(-1, self.size, self.size)
        flakes = self.enlarge(self.constants.mean + self.constants.std * layer)
        vertical = uniform(seed, "snow direction", groups)[:, 0] > 0.5
        return {"flakes": flakes[member], "vertical": vertical[member]}

    def snow(self, t: Tensor, drawn: Drawn) -> Tensor:
        """S_t of each image, float32 (N, size, size) in [0, 1]."""
        flakes, vertical = drawn["flakes"], drawn["vertical"][:, None, None]
        # In float64, because rounding could move a flake across the threshold.
        visible = torch.where(flakes < self._at(self.constants.threshold, t)[:, None, None], 0.0, flakes)
        visible = visible.clamp(0, 1).to(torch.float32)
        along = torch.where(vertical, visible.mT, visible) @ self.operators_on(t.device)[t].mT
        return torch.where(vertical, along.mT, along)

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The image with its snow, in [-1, 1]."""
        x = (x0 + 1) / 2
        if not self.fix_brightness:
            share = self._at(self.constants.brightness, t)[:, None, None, None].to(x.dtype)
            weights = torch.tensor(LUMA, dtype=x.dtype, device=x.device)[:, None, None]
            grey = (x * weights).sum(dim=1, keepdim=True) if x.shape[1] == 3 else x
            x = share * x + (1 - share) * torch.maximum(x, 1.5 * grey + 0.5)
        snow = self.snow(t, drawn)
        both = (snow + snow.flip(1, 2))[:, None].to(x.dtype)
        return (x + both).clamp(0, 1) * 2 - 1

    def _at(self, ends: tuple[float, float], t: Tensor) -> Tensor:
        """The value at severity t of a quantity that is linear between its `ends` at 1 and T, float64 (N,)."""
        share = (t.to(torch.float64) - 1) / max(self.T - 1, 1)
        return ends[0] + (ends[1] - ends[0]) * share
