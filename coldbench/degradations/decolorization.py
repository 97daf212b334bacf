"""Colour removal: t steps from colour to grey (paper, appendix A.4; protocol 2.6).

Each step mixes a pixel's channels with their grey, and leaves a grey pixel unchanged. So t steps are one mix, and its
share of colour is the product of the shares of the steps.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from coldbench.core.plugins import degradation
from coldbench.degradations.base import STRICT, Drawn, Matrix, Precomputed, Severity, Size

GREYS = {"mean": (1 / 3, 1 / 3, 1 / 3), "luma": (0.299, 0.587, 0.114)}  # luma: Rec. 601


@degradation("decolorization")
@dataclass(frozen=True, config=STRICT)
class Decolorization(Precomputed):
    """D(x, t) = k_t · x + (1 − k_t) · grey(x), the same grey in all three channels.

    `schedule`: linear is k_t = 1 − t/T, the paper's z(t/T); constant is k_t = keep^t. With `total`, k_T is 0. `grey` is
    the mean of the channels, as in the paper and the released code, or the Rec. 601 luma, which the printed numbers
    exclude.
    """

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""
    schedule: Literal["linear", "constant"] = "linear"
    """How the share of colour falls with t: 1 − t/T, or keep^t."""
    keep: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the colour that each step keeps; constant schedule only."""
    total: bool = True
    """Whether severity T is entirely grey, whatever the schedule leaves."""
    grey: Literal["mean", "luma"] = "mean"
    """What grey is: the mean of the channels, or the luma of Rec. 601."""

    linear = True
    needs_colour = True

    test_params = (
        {"T": 7},
        {"T": 5, "schedule": "constant", "keep": 0.8},
        {"T": 5, "schedule": "constant", "keep": 0.8, "total": False, "grey": "luma"},
    )

    def operators(self) -> Matrix:
        """k_0 … k_T, the weight of x, float64 (T+1,)."""
        t = np.arange(self.T + 1, dtype=np.float64)
        weights = 1 - t / self.T if self.schedule == "linear" else self.keep**t
        if self.total:
            weights[self.T] = 0
        return weights

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The mix of x0 and its grey."""
        k = self.operators_on(x0.device)[t][:, None, None, None].to(x0.dtype)
        weights = torch.tensor(GREYS[self.grey], dtype=x0.dtype, device=x0.device)
        grey = (x0 * weights[:, None, None]).sum(dim=1, keepdim=True)
        return k * x0 + (1 - k) * grey
