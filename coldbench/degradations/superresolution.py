"""Super-resolution: t reductions, each enlarged back by nearest neighbour (paper, section 4.3; A.3).

Reducing and enlarging act on each axis alone and are linear, so severity t is one matrix per axis: the product of t
steps, each taken from torch's own interpolation in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from coldbench.core.errors import ColdbenchError
from coldbench.degradations.base import Matrix, SeparableLinear, check_numbers, choose

REDUCE = {"average": "area", "bicubic": "bicubic", "bilinear": "bilinear"}  # our word: torch's, none with antialiasing


@dataclass(frozen=True)
class SuperResolution(SeparableLinear):
    """T reductions, each of the full-size picture that the last one left, to `sides`.

    `schedule`: halving, step i = 0…T−1 reduces to ⌊size / 2^(i+1)⌋ pixels; shrinking, to size − i pixels (a released
    routine that the paper does not use; its first step changes nothing).
    `reduce`: average, the mean of the pixels below, which reproduces the printed Degraded cells (protocol `fitted`);
    bicubic, what the released routine of that name selects (protocol `released`); bilinear, for halvings the same as
    average.
    """

    size: int
    T: int
    reduce: str = "average"
    schedule: str = "halving"

    test_params = (
        {"T": 4},
        {"T": 3, "reduce": "bicubic"},
        {"T": 2, "reduce": "bilinear"},
        {"T": 5, "schedule": "shrinking"},
        {"T": 3, "schedule": "shrinking", "reduce": "bicubic"},
    )

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 4095))
        choose("reduce of degradation superresolution", self.reduce, tuple(REDUCE))
        choose("schedule of degradation superresolution", self.schedule, ("halving", "shrinking"))
        most = self.size.bit_length() - 1 if self.schedule == "halving" else self.size
        if most < self.T:
            raise ColdbenchError(
                f"degradation superresolution: {self.size} px can be reduced {most} times by {self.schedule}, "
                f"not {self.T}: T ≤ {most}"
            )

    @property
    def keeps_mean(self) -> bool:
        """Halvings of an even side give every pixel the same weight, bicubic ones as well."""
        return self.schedule == "halving" and self.size % 2**self.T == 0

    @property
    def bound(self) -> float:
        """Bicubic weights overshoot: those of one halving by 1.375 per axis, after which only means are taken."""
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
        """Reducing the columns of the identity to `side` rows, and enlarging them again."""
        columns = torch.eye(self.size, dtype=torch.float64)[None, None]
        mode = REDUCE[self.reduce]
        extra = {} if mode == "area" else {"align_corners": False}
        small = functional.interpolate(columns, size=(side, self.size), mode=mode, **extra)
        large = functional.interpolate(small, size=(self.size, self.size), mode="nearest-exact")
        return np.asarray(large[0, 0].numpy(), dtype=np.float64)
