"""The three ranges of an image: uint8 on disk, float in [-1, 1] in the networks, float in [0, 1] in the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

# torch is imported inside functions, so that the status, the plan and the list of data sets answer without loading it.
if TYPE_CHECKING:
    import torch
    from torch import Tensor


def from_uint8(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 images (N, C, H, W) as float32 in [-1, 1] on `device`."""
    import torch

    return torch.tensor(images, device=device).to(torch.float32) / 255 * 2 - 1


def to_unit_interval(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], not clamped."""
    return (x + 1) / 2


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as an image file holds them: uint8, clamped and rounded to the nearest level (half to even)."""
    import torch

    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def batches(count: int, side: int) -> list[slice]:
    """Slices that cover images 0…count−1 of `side` pixels in order, each of at most 500 images.

    Above 64 pixels a slice has fewer images, so that what is computed from it needs no more memory.
    """
    size = max(500 * 64**2 // max(side, 64) ** 2, 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
