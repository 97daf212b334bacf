"""Randomness that belongs to an image: a number is a function of (seed, purpose, image index, draw).

A counter-based generator has no state. The batch, its order, the number of workers and a restart therefore change
nothing, and any one image can be generated again alone. The mixing function is SplitMix64's finaliser (Steele, Lea and
Flood, 2014).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

# torch is imported inside functions, so that the status, the plan and the list of data sets answer without loading it.
if TYPE_CHECKING:
    from torch import Tensor

_MASK = (1 << 64) - 1
_WEYL = 0x9E3779B97F4A7C15


def _signed(value: int) -> int:
    """The int64 with the same bits as the unsigned 64-bit `value`."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, because torch shifts arithmetically."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def bits(seed: int, purpose: str, indices: Tensor, draws: int) -> Tensor:
    """Random int64 words, shape (N, draws), for image `indices` (N,) int64, on the indices' device."""
    import torch

    # The key is mixed because images advance by the same constant as seeds; streams would otherwise be shifted copies.
    key = _mix(torch.tensor(_signed((seed * _WEYL) ^ zlib.crc32(purpose.encode()) << 17), device=indices.device))
    images = _mix(indices.to(torch.int64) * _signed(_WEYL) + key)
    counters = torch.arange(1, draws + 1, device=indices.device, dtype=torch.int64) * _signed(_WEYL)
    return _mix(images[:, None] + counters[None, :])


def uniform(seed: int, purpose: str, indices: Tensor, draws: int = 1) -> Tensor:
    """Uniform float64 numbers in [0, 1), shape (N, draws)."""
    import torch

    return _shift(bits(seed, purpose, indices, draws), 11).to(torch.float64) * 2.0**-53


def normal(seed: int, purpose: str, indices: Tensor, draws: int = 1) -> Tensor:
    """Standard normal float64 numbers, shape (N, draws): the normal quantile of a uniform number inside (0, 1)."""
    import torch

    inside = (_shift(bits(seed, purpose, indices, draws), 12).to(torch.float64) + 0.5) * 2.0**-52
    numbers: Tensor = torch.special.ndtri(inside)
    return numbers


def integers(seed: int, purpose: str, indices: Tensor, low: int, high: int, draws: int = 1) -> Tensor:
    """Uniform int64 numbers in low…high, both ends included, shape (N, draws)."""
    import torch

    return low + (uniform(seed, purpose, indices, draws) * (high - low + 1)).to(torch.int64)


def permutation(seed: int, purpose: str, epoch: int, count: int) -> Tensor:
    """A random order of 0…count−1, int64 (count,), the same on every machine."""
    import torch

    words = bits(seed, f"{purpose} {epoch}", torch.arange(count), 1)[:, 0]
    return torch.argsort(words, stable=True)


def derive(seed: int, purpose: str) -> int:
    """A separate seed for `purpose`: an integer from 0 to 2^63 − 1."""
    import torch

    return int(_shift(bits(seed, purpose, torch.zeros(1, dtype=torch.int64), 1), 1)[0, 0])
