"""Super-resolution: t reductions, each enlarged again by nearest neighbour (paper, section 4.3; A.3).

Reducing and enlarging are linear and act on each axis separately. So severity t is one matrix per axis: the product of
t steps, each computed by torch's interpolation in float64.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn import functional

from coldbench.core.plugins import degradation
from coldbench.degradations.base import STRICT, Matrix, SeparableLinear, Size

REDUCE = {"average": "area", "bicubic": "bicubic", "bilinear": "bilinear"}  # torch's modes, without antialiasing


@degradation("superresolution")
@dataclass(frozen=True, config=STRICT)
class SuperResolution(SeparableLinear):
    """T reductions to `sides`; each reduces the full-size result of the previous one.

    `schedule`: step i = 0…T−1 of halving reduces to ⌊size / 2^(i+1)⌋ pixels, of shrinking to size − i pixels. Shrinking
    is a released routine that the paper does not use; its first step changes nothing.
    `reduce`: average is the mean of the pixels below and reproduces the printed Degraded cells (protocol `fitted`);
    bicubic is the choice of the released routine of that name (protocol `released`); bilinear equals average for
    halvings.
    """

    size: Size
    T: Annotated[int, Field(ge=1, le=4095)]
    """Number of degradation steps, which is the largest severity."""
    reduce: Literal["average", "bicubic", "bilinear"] = "average"
    """Interpolation that reduces the image."""
    schedule: Literal["halving", "shrinking"] = "halving"
    """Whether each step halves the side, or takes one pixel off it."""

    test_params = (
        {"T": 4},
        {"T": 3, "reduce": "bicubic"},
        {"T": 2, "reduce": "bilinear"},
        {"T": 5, "schedule": "shrinking"},
        {"T": 3, "schedule": "shrinking", "reduce": "bicubic"},
    )

    def __post_init__(self) -> None:
        most = self.size.bit_length() - 1 if self.schedule == "halving" else self.size
        if most < self.T:
            raise ValueError(f"{self.size} px can be reduced {most} times by {self.schedule}, not {self.T}: T ≤ {most}")

    @property
    def keeps_mean(self) -> bool:
        """Every pixel has the same weight if each side is even and halved, with bicubic weights as well."""
        return self.schedule == "halving" and self.size % 2**self.T == 0

    @property
    def bound(self) -> float:
        """Bicubic weights overshoot: the first halving by 1.375 per axis; later halvings only average."""
        if self.reduce != "bicubic":
            return 1.0
        return 1.375**2 if self.keeps_mean else float(np.abs(self.operators()).sum(axis=2).max() ** 2)

    def sides(self) -> list[int]:
        """The side in pixels that each step reduces to, T numbers."""
        halving = self.schedule == "halving"
        return [self.size // 2 ** (i + 1) if halving else self.size - i for i in range(self.T)]

    def operators(self) -> Matrix:
        """A_0 … A_T, float64 (T+1, size, size)."""
        result = [np.eye(self.size)]
        for side in self.sides():
            result.append(self._one_step(side) @ result[-1])
        return np.stack(result)

    def _one_step(self, side: int) -> Matrix:
        """The matrix of one reduction to `side` pixels and its enlargement, float64 (size, size)."""
        columns = torch.eye(self.size, dtype=torch.float64)[None, None]
        mode = REDUCE[self.reduce]
        extra = {} if mode == "area" else {"align_corners": False}
        small = functional.interpolate(columns, size=(side, self.size), mode=mode, **extra)
        large = functional.interpolate(small, size=(self.size, self.size), mode="nearest-exact")
        return np.asarray(large[0, 0].numpy(), dtype=np.float64)
