"""Mixing with another picture: Gaussian noise (paper, section 5.1) and animorphosis (section 5.3).

D(x, t) = √ᾱ_t · x + √(1 − ᾱ_t) · z, with z drawn once per image: noise, or an image of another data set. The schedule
ᾱ is the cosine one of Nichol and Dhariwal (2021), as the released code has it (discrepancies D15, D27).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.images import from_uint8
from coldbench.core.rng import integers, normal
from coldbench.degradations.base import Drawn, Matrix, Precomputed, check_numbers

OFFSET = 0.008  # keeps the first steps from being vanishingly small
LARGEST_BETA = 0.999  # only the last step of the cosine schedule meets this limit


def cosine_alphas(T: int) -> Matrix:
    """ᾱ_0 = 1 … ᾱ_T, float64 (T+1,): products of 1 − β_t with β_t from cos² and clipped at LARGEST_BETA."""
    f = np.cos((np.arange(T + 1) / T + OFFSET) / (1 + OFFSET) * np.pi / 2) ** 2
    betas = np.clip(1 - f[1:] / f[:-1], 0, LARGEST_BETA)
    return np.concatenate([[1.0], np.cumprod(1 - betas)])


class Mixing(Precomputed):
    """√ᾱ_t · x0 + √(1 − ᾱ_t) · z; `drawn["z"]`, float32 (N, 3, size, size), is the picture that x0 turns into."""

    @property
    def bound(self) -> float:
        """For |z| ≤ 1: the sum of the two weights is at most √2."""
        return float(np.sqrt(2))

    def operators(self) -> Matrix:
        """√ᾱ_t and √(1 − ᾱ_t), float64 (T+1, 2)."""
        alphas = cosine_alphas(self.T)
        return np.sqrt(np.stack([alphas, 1 - alphas], axis=1))

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The mix; a picture of one channel takes the first of z."""
        weights = self.operators_on(x0.device)[t].to(x0.dtype)[:, :, None, None, None]
        return weights[:, 0] * x0 + weights[:, 1] * drawn["z"][:, : x0.shape[1]].to(x0.dtype)

    def estimate_z(self, x: Tensor, x0: Tensor, s: int) -> Tensor:
        """The z that turns x0 into x at severity s ≥ 1: (x − √ᾱ_s · x0) / √(1 − ᾱ_s)."""
        keep, mix = (float(weight) for weight in self.operators()[s])
        return (x - keep * x0) / mix

    def posterior(self, s: int, r: int) -> tuple[float, float]:
        """For a DDPM step from s to r: the share of ẑ that is kept, and of fresh noise; their squares add up to 1."""
        alphas = cosine_alphas(self.T)
        if r == 0:
            return 1.0, 0.0
        share = (1 - alphas[s] / alphas[r]) / (1 - alphas[s])  # σ² over 1 − ᾱ_r
        return float(np.sqrt(1 - share)), float(np.sqrt(share))


@dataclass(frozen=True)
class Noise(Mixing):
    """z is standard normal: the paper's hot diffusion, with the noise fixed for all severities of an image."""

    size: int
    T: int

    test_params = ({"T": 9}, {"T": 200})

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 10_000))

    @property
    def bound(self) -> float:
        """Normal noise has none."""
        return float("inf")

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The noise per image: `z` float32 (N, 3, size, size)."""
        z = normal(seed, "noise", indices, 3 * self.size**2)
        return {"z": z.to(torch.float32).reshape(-1, 3, self.size, self.size)}


@dataclass(frozen=True)
class Animorphosis(Mixing):
    """z is an image of the data set `partner`, drawn uniformly for each image; the pairs are not fixed (protocol 2.8).

    `images`, uint8 (M, C, size, size), are that data set's training images. Without them D can be applied to draws
    made elsewhere, but nothing can be drawn.
    """

    size: int
    T: int
    partner: str
    images: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    test_params = ({"T": 9, "partner": "photos"},)

    def __post_init__(self) -> None:
        check_numbers(self, size=(2, 4096), T=(1, 10_000))
        if not isinstance(self.partner, str):
            raise ColdbenchError(f"degradation animorphosis: partner must name a data set, not {self.partner!r}")
        given, wanted = self.images, ((1, self.size, self.size), (3, self.size, self.size))
        if given is not None and (given.dtype != np.uint8 or given.shape[1:] not in wanted or not len(given)):
            raise ColdbenchError(
                f"degradation animorphosis: the images of {self.partner} must be uint8 (M, 1 or 3, {self.size}, "
                f"{self.size}), not {given.dtype} {given.shape}"
            )

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The partner per image: `z` float32 (N, 3, size, size) in [-1, 1]; grey pictures have three equal channels."""
        if self.images is None:
            raise ColdbenchError(f"degradation animorphosis: the images of {self.partner} were not given")
        chosen = integers(seed, "animorphosis partner", indices, 0, len(self.images) - 1)[:, 0]
        z = from_uint8(self.images[chosen.cpu().numpy()], indices.device)
        return {"z": z.expand(-1, 3, -1, -1)}
