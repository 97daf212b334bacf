"""Where an unconditional generation starts: x_T drawn without an image to restore (paper, section 5; protocol 3.4).

A start is drawn for each image from the seed and the image's index. Two kinds are fitted to training images first: a
mixture of Gaussians models the channel means of a blurred image, or the few pixels that super-resolution leaves.
`noise_level` adds normal noise once, which breaks the symmetry of a blurred image (section 5.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench.core import rng
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.degradations import Degradation, Drawn, InpaintingGeneration
from coldbench.degradations.mixing import Animorphosis, Noise
from coldbench.degradations.superresolution import SuperResolution

REGULARISATION = 1e-6
"""What is added to the diagonals of the covariances."""
FITTED = ("means", "grid")
"""The fitted kinds: the mean of each channel, or the pixels of the smallest super-resolution image."""


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture of d-vectors: `weights` (k,), `means` (k, d), lower Cholesky `factors` (k, d, d), float64."""

    weights: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    factors: npt.NDArray[np.float64]

    def draw(self, indices: Tensor, seed: int) -> Tensor:
        """One vector for each image in `indices` int64 (N,): float64 (N, d), on their device."""
        device = indices.device
        edges = torch.from_numpy(np.cumsum(self.weights)[:-1]).to(device)
        component = torch.searchsorted(edges, rng.uniform(seed, "mixture component", indices)[:, 0], right=True)
        z = rng.normal(seed, "mixture", indices, self.means.shape[1])
        means, factors = (torch.from_numpy(array).to(device)[component] for array in (self.means, self.factors))
        return means + (factors @ z[:, :, None])[:, :, 0]


def fit(features: npt.NDArray[np.float64], components: int, seed: int) -> Mixture:
    """Fit `components` Gaussians with full covariances to features (M, d), from k-means, as the released code does.

    A single component has the mean and the biased covariance, with REGULARISATION on its diagonal. Raises
    ColdbenchError for fewer than two features, or fewer features than components.
    """
    from sklearn.mixture import GaussianMixture

    if len(features) < max(2, components):
        raise ColdbenchError(f"{len(features)} training images are too few for a mixture of {components}")
    model = GaussianMixture(components, covariance_type="full", reg_covar=REGULARISATION, random_state=seed % 2**32)
    model.fit(features)
    return Mixture(model.weights_, model.means_, np.linalg.cholesky(model.covariances_))


def features(kind: str, degradation: Degradation, batches: Iterable[Tensor]) -> npt.NDArray[np.float64]:
    """The features of a kind in FITTED, float64 (M, d), from batches of training images x0 in [-1, 1]."""
    rows = []
    for x0 in batches:
        if kind == "means":
            small = x0.mean(dim=(2, 3))
        else:
            t = torch.full((len(x0),), degradation.T, device=x0.device)
            side = _side(degradation)
            xt = degradation(x0, t, {})
            small = torch.nn.functional.interpolate(xt, size=(side, side), mode="area").flatten(1)
        rows.append(small.double().cpu().numpy())
    return np.concatenate(rows)


def draw(
    kind: str,
    degradation: Degradation,
    indices: Tensor,
    seed: int,
    channels: int,
    mixture: Mixture | None = None,
    noise_level: float = 0.0,
) -> tuple[Tensor, Drawn]:
    """x_T for the images `indices` (N,) int64, float32 (N, channels, size, size), and what the degradation draws.

    means: an image of one colour; grid: an image of few pixels, enlarged; colour, partner, noise: the image that the
    degradation ends in, from its own draw. Raises ColdbenchError for a kind that the degradation does not end in.
    """
    check(kind, degradation)
    size, drawn = degradation.size, degradation.draw(indices, seed)
    if kind in FITTED:
        if mixture is None:
            raise ColdbenchError(f"mixture is missing: starts of kind {kind} must be fitted first")
        vectors = mixture.draw(indices, seed).to(torch.float32)
        side = 1 if kind == "means" else _side(degradation)
        small = vectors.reshape(len(indices), channels, side, side)
        x = torch.nn.functional.interpolate(small, size=(size, size), mode="nearest-exact")
    elif kind == "colour":
        x = drawn["colour"][:, :channels, None, None].expand(-1, -1, size, size).clone()
    else:
        x = drawn["z"][:, :channels].clone()
    if noise_level:
        noise = rng.normal(seed, "symmetry", indices, channels * size**2).reshape(x.shape)
        x = x + noise_level * noise.to(x.dtype)
    return x, drawn


def check(kind: str, degradation: Degradation) -> None:
    """Raise ColdbenchError if `degradation` does not end in images of that kind."""
    families: dict[str, type[Any]] = {
        "means": Degradation,
        "grid": SuperResolution,
        "colour": InpaintingGeneration,
        "partner": Animorphosis,
        "noise": Noise,
    }
    if kind not in families:
        raise unknown("kind of start", kind, families)
    if not isinstance(degradation, families[kind]):
        valid = ", ".join(name for name, family in families.items() if isinstance(degradation, family))
        raise ColdbenchError(f"start '{kind}' does not fit degradation {degradation.name} (valid: {valid})")


def _side(degradation: Degradation) -> int:
    """The side in pixels of the smallest super-resolution image."""
    check("grid", degradation)
    assert isinstance(degradation, SuperResolution)
    return degradation.sides()[-1]
