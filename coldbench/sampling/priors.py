"""Where an unconditional generation starts: x_T drawn without a picture to restore (paper, section 5; protocol 3.4).

A start is drawn per image from the seed and the image's index. Two kinds are fitted to training images first: the
channel means of a blurred picture, and the few pixels that super-resolution leaves, are modelled by a mixture of
Gaussians. `noise_level` then adds normal noise once, which breaks the symmetry of a blurred picture (section 5.2).
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

REGULARISATION = 1e-6  # added to the covariances' diagonals
FITTED = ("means", "grid")
"""Kinds that are fitted: the mean of every channel, or the pixels of the smallest super-resolution image."""


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture of d-vectors: `weights` (k,), `means` (k, d), lower Cholesky `factors` (k, d, d), float64."""

    weights: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    factors: npt.NDArray[np.float64]

    def draw(self, indices: Tensor, seed: int) -> Tensor:
        """One vector per image, float64 (N, d), on the indices' device."""
        device = indices.device
        edges = torch.from_numpy(np.cumsum(self.weights)[:-1]).to(device)
        component = torch.searchsorted(edges, rng.uniform(seed, "mixture component", indices)[:, 0], right=True)
        z = rng.normal(seed, "mixture", indices, self.means.shape[1])
        means, factors = (torch.from_numpy(part).to(device)[component] for part in (self.means, self.factors))
        return means + (factors @ z[:, :, None])[:, :, 0]


def fit(features: npt.NDArray[np.float64], components: int, seed: int) -> Mixture:
    """Fit `components` Gaussians of full covariance to features (M, d), from k-means, as the released code does.

    One component is the mean and the biased covariance, with REGULARISATION on its diagonal.
    """
    from sklearn.mixture import GaussianMixture

    if len(features) < max(2, components):
        raise ColdbenchError(f"a mixture of {components} needs more than {len(features)} images")
    model = GaussianMixture(components, covariance_type="full", reg_covar=REGULARISATION, random_state=seed % 2**32)
    model.fit(features)
    return Mixture(model.weights_, model.means_, np.linalg.cholesky(model.covariances_))


def features(kind: str, degradation: Degradation, batches: Iterable[Tensor]) -> npt.NDArray[np.float64]:
    """What `fit` is given for a kind of FITTED, float64 (M, d), from batches of training images x0 in [-1, 1]."""
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
    """x_T for the images `indices` (N,) int64, float32 (N, channels, size, size), and the state of its trajectory.

    means: a picture of one colour; grid: one of few pixels, enlarged; colour, partner, noise: what the degradation
    itself ends in, its own state. Raises ColdbenchError for a kind that the degradation does not end in.
    """
    check(kind, degradation)
    size, state = degradation.size, degradation.draw(indices, seed)
    if kind in FITTED:
        if mixture is None:
            raise ColdbenchError(f"starts of kind {kind} must be fitted first")
        vectors = mixture.draw(indices, seed).to(torch.float32)
        side = 1 if kind == "means" else _side(degradation)
        small = vectors.reshape(len(indices), channels, side, side)
        x = torch.nn.functional.interpolate(small, size=(size, size), mode="nearest-exact")
    elif kind == "colour":
        x = state["colour"][:, :channels, None, None].expand(-1, -1, size, size).clone()
    else:
        x = state["z"][:, :channels].clone()
    if noise_level:
        noise = rng.normal(seed, "symmetry", indices, channels * size**2).reshape(x.shape)
        x = x + noise_level * noise.to(x.dtype)
    return x, state


def check(kind: str, degradation: Degradation) -> None:
    """Raise ColdbenchError if `degradation` does not end in pictures of that kind."""
    needed: dict[str, type[Any]] = {
        "means": Degradation,
        "grid": SuperResolution,
        "colour": InpaintingGeneration,
        "partner": Animorphosis,
        "noise": Noise,
    }
    if kind not in needed:
        raise unknown("kind of start", kind, needed)
    if not isinstance(degradation, needed[kind]):
        fits = ", ".join(name for name, family in needed.items() if isinstance(degradation, family))
        raise ColdbenchError(f"degradation {degradation.name} cannot start from '{kind}' (it can from: {fits})")


def _side(degradation: Degradation) -> int:
    """The side in pixels of the smallest image of super-resolution."""
    check("grid", degradation)
    assert isinstance(degradation, SuperResolution)
    return degradation.sides()[-1]
