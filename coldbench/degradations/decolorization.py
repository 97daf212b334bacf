"""Colour removal: t steps from colour to grey (paper, appendix A.4; protocol 2.6).

Each step mixes a pixel's channels with their grey, which a grey pixel survives unchanged, so t steps are one mix whose
share of colour is the product of the steps' shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coldbench.degradations.base import Drawn, Matrix, Precomputed, check_numbers, choose

GREYS = {"mean": (1 / 3, 1 / 3, 1 / 3), "luma": (0.299, 0.587, 0.114)}  # luma: Rec. 601


@dataclass(frozen=True)
class Decolorization(Precomputed):
    """D(x, t) = k_t · x + (1 − k_t) · grey(x), the same grey in all three channels.

    `schedule`: linear, k_t = 1 − t/T, the paper's z(t/T); constant, each step keeps the share `keep` (k_t = keep^t)
    and, where `total` says so, the last one nothing. `grey`: mean of the channels, as paper and released code have it,
    or the Rec. 601 luma, a reading that the printed numbers exclude.
    """

    size: int
    T: int
    schedule: str = "linear"
    keep: float = 0.9
    total: bool = True
    grey: str = "mean"

    linear = True
    needs_colour = True

    test_params = (
        {"T": 7},
        {"T": 5, "schedule": "constant", "keep": 0.8},
        {"T": 5, "schedule": "constant", "keep": 0.8, "total": False, "grey": "luma"},
    )

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 10_000), keep=(0, 1))
        choose("schedule of degradation decolorization", self.schedule, ("linear", "constant"))
        choose("grey of degradation decolorization", self.grey, tuple(GREYS))

    def operators(self) -> Matrix:
        """k_0 … k_T, the share of colour kept, float64 (T+1,)."""
        t = np.arange(self.T + 1, dtype=np.float64)
        kept = 1 - t / self.T if self.schedule == "linear" else self.keep**t
        if self.total:
            kept[self.T] = 0
        return kept

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The mix of x0 and its grey."""
        kept = self.operators_on(x0.device)[t][:, None, None, None].to(x0.dtype)
        weights = torch.tensor(GREYS[self.grey], dtype=x0.dtype, device=x0.device)
        grey = (x0 * weights[:, None, None]).sum(dim=1, keepdim=True)
        return kept * x0 + (1 - kept) * grey
