"""Mixing with another image: Gaussian noise (paper, section 5.1) and animorphosis (section 5.3).

D(x, t) = √ᾱ_t · x + √(1 − ᾱ_t) · z, where z is drawn once per image: noise, or an image of another data set. ᾱ is the
cosine schedule of Nichol and Dhariwal (2021) as the released code computes it (discrepancies D15, D27).
"""

from __future__ import annotations

from dataclasses import field

import numpy as np
import numpy.typing as npt
import torch
from pydantic import SkipValidation
from pydantic.dataclasses import dataclass
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.images import from_uint8
from coldbench.core.plugins import degradation
from coldbench.core.rng import integers, normal
from coldbench.degradations.base import STRICT, Drawn, Matrix, Precomputed, Severity, Size

OFFSET = 0.008  # without it the first steps would be vanishingly small
LARGEST_BETA = 0.999  # only the last step of the schedule reaches this limit


def cosine_alphas(T: int) -> Matrix:
    """ᾱ_0 = 1 … ᾱ_T, float64 (T+1,): products of 1 − β_t, where β_t comes from cos² and is at most LARGEST_BETA."""
    f = np.cos((np.arange(T + 1) / T + OFFSET) / (1 + OFFSET) * np.pi / 2) ** 2
    betas = np.clip(1 - f[1:] / f[:-1], 0, LARGEST_BETA)
    return np.concatenate([[1.0], np.cumprod(1 - betas)])


class Mixing(Precomputed):
    """√ᾱ_t · x0 + √(1 − ᾱ_t) · z, where `drawn["z"]`, float32 (N, 3, size, size), is the image at the end."""

    @property
    def bound(self) -> float:
        """For |z| ≤ 1: the sum of the two weights is at most √2."""
        return float(np.sqrt(2))

    def operators(self) -> Matrix:
        """√ᾱ_t and √(1 − ᾱ_t), float64 (T+1, 2)."""
        alphas = cosine_alphas(self.T)
        return np.sqrt(np.stack([alphas, 1 - alphas], axis=1))

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The mix; images of one channel use the first channel of z."""
        weights = self.operators_on(x0.device)[t].to(x0.dtype)[:, :, None, None, None]
        return weights[:, 0] * x0 + weights[:, 1] * drawn["z"][:, : x0.shape[1]].to(x0.dtype)

    def estimate_z(self, x: Tensor, x0: Tensor, s: int) -> Tensor:
        """The z with D(x0, s) = x at severity s ≥ 1: (x − √ᾱ_s · x0) / √(1 − ᾱ_s)."""
        keep, mix = (float(weight) for weight in self.operators()[s])
        return (x - keep * x0) / mix

    def posterior(self, s: int, r: int) -> tuple[float, float]:
        """The weights of ẑ and of new noise in a DDPM step from s to r < s; their squares add up to 1."""
        alphas = cosine_alphas(self.T)
        if r == 0:
            return 1.0, 0.0
        share = (1 - alphas[s] / alphas[r]) / (1 - alphas[s])  # σ² over 1 − ᾱ_r
        return float(np.sqrt(1 - share)), float(np.sqrt(share))


@degradation("noise")
@dataclass(frozen=True, config=STRICT)
class Noise(Mixing):
    """z is standard normal: the paper's hot diffusion with one noise for all severities of an image."""

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""

    test_params = ({"T": 9}, {"T": 200})

    @property
    def bound(self) -> float:
        """Normal noise is unbounded."""
        return float("inf")

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The noise of each image: `z` float32 (N, 3, size, size)."""
        z = normal(seed, "noise", indices, 3 * self.size**2)
        return {"z": z.to(torch.float32).reshape(-1, 3, self.size, self.size)}


@degradation("animorphosis")
@dataclass(frozen=True, config=STRICT)
class Animorphosis(Mixing):
    """z is an image of the data set `partner`, drawn uniformly for each image; the pairs are not fixed (protocol 2.8).

    `images`, uint8 (M, C, size, size), are the training images of that data set. Without them D works, but `draw`
    raises ColdbenchError.
    """

    size: Size
    T: Severity
    """Number of degradation steps, which is the largest severity."""
    partner: str
    """Name of the data set whose images are mixed in."""
    images: SkipValidation[npt.NDArray[np.uint8] | None] = field(default=None, repr=False, compare=False)

    test_params = ({"T": 9, "partner": "photos"},)

    def __post_init__(self) -> None:
        images, shapes = self.images, ((1, self.size, self.size), (3, self.size, self.size))
        if images is not None and (images.dtype != np.uint8 or images.shape[1:] not in shapes or not len(images)):
            raise ValueError(
                f"the images of {self.partner} must be uint8 (M, 1 or 3, {self.size}, {self.size}), "
                f"not {images.dtype} {images.shape}"
            )

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The partner of each image: `z` float32 (N, 3, size, size) in [-1, 1]; a grey one has three equal channels."""
        if self.images is None:
            raise ColdbenchError(f"degradation animorphosis: the images of {self.partner} are missing")
        chosen = integers(seed, "animorphosis partner", indices, 0, len(self.images) - 1)[:, 0]
        z = from_uint8(self.images[chosen.cpu().numpy()], indices.device)
        return {"z": z.expand(-1, 3, -1, -1)}
