"""The three ranges of an image: uint8 on disk, float in [-1, 1] inside, float in [0, 1] in the metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def from_uint8(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 images (N, C, H, W) as float32 in [-1, 1]."""
    return torch.tensor(images, device=device).to(torch.float32) / 255 * 2 - 1


def to_unit_interval(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], not clamped."""
    return (x + 1) / 2
