"""The samplers of the paper: direct reconstruction, Algorithm 1 (naive), Algorithm 2 (TACoS), and those for noise.

All run from x_T down to x_0 and differ only in how x_r, the next iterate, follows from x_s and x̂_0 = R(x_s, s). Nothing
is clamped; iterates may leave [-1, 1] (protocol, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.degradations import Degradation, Drawn
from coldbench.degradations.mixing import Mixing
from coldbench.models import Restorer


@dataclass(frozen=True)
class Step:
    """One reverse step: the severity s it started from, the prediction x̂_0 = R(x_s, s), and the result x_r."""

    s: int
    x0_hat: Tensor
    x: Tensor


@dataclass(frozen=True)
class Operator:
    """D for one batch: what was drawn for its images, and how to draw anew."""

    degradation: Degradation
    drawn: Drawn
    redraw: Callable[[int], Drawn] | None = None  # of a severity
    t_offset: int = 0  # the released code's snow and colour samplers take every D one severity too low

    def __call__(self, x0: Tensor, s: int, drawn: Drawn | None = None) -> Tensor:
        """D(x0, s) for the whole batch at one severity."""
        t = torch.full((len(x0),), max(s - self.t_offset, 0), device=x0.device)
        return self.degradation(x0, t, self.drawn if drawn is None else drawn)

    def redrawn(self, s: int) -> Drawn:
        """A draw for severity s alone."""
        if self.redraw is None:
            raise ColdbenchError("this method draws at every step; give `redraw`")
        return self.redraw(s)

    @property
    def mixing(self) -> Mixing:
        """The degradation, which mixes with noise or another picture: `check` has seen to it."""
        assert isinstance(self.degradation, Mixing)
        return self.degradation


def direct(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """x_0 = R(x_T, T): one prediction, taken as it is."""
    return x0_hat


def naive(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 1: x_{s−1} = D(x̂_0, s−1)."""
    return d(x0_hat, r)


def tacos(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2, Transformation Agnostic Cold Sampling: x_{s−1} = x_s − D(x̂_0, s) + D(x̂_0, s−1).

    For noise, whose z is part of the draw, this is the paper's fixed noise.
    """
    return x - d(x0_hat, s) + d(x0_hat, r)


def estimated(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2 with ẑ = (x_s − √ᾱ_s x̂_0) / √(1 − ᾱ_s) in the place of z: deterministic DDIM (appendix A.6)."""
    return d(x0_hat, r, {"z": d.mixing.estimate_z(x, x0_hat, s)})


def resampled(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2 with z drawn anew at every step (section 5.1, the first of its three options)."""
    drawn = d.redrawn(s)
    return x - d(x0_hat, s, drawn) + d(x0_hat, r, drawn)


def naive_resampled(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 1 with z drawn anew at every step."""
    return d(x0_hat, r, d.redrawn(s))


def ddpm(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Ho et al. (2020) in the form of Song et al. (2021): ẑ as in DDIM, and noise of the posterior's σ_s."""
    z = d.mixing.estimate_z(x, x0_hat, s)
    keep, sigma = d.mixing.posterior(s, r)
    return d(x0_hat, r, {"z": keep * z + sigma * d.redrawn(s)["z"][:, : x.shape[1]].to(x.dtype)})


Method = Callable[[Tensor, Tensor, int, int, Operator], Tensor]
METHODS: dict[str, Method] = {
    "direct": direct,
    "naive": naive,
    "tacos": tacos,
    "estimated": estimated,
    "resampled": resampled,
    "naive_resampled": naive_resampled,
    "ddpm": ddpm,
}


NEED_MIXING = ("estimated", "ddpm")
"""Methods that estimate what a picture was mixed with; noise and animorphosis are such degradations."""


def check(method: str, degradation: Degradation) -> None:
    """Raise ColdbenchError unless `method` is one of METHODS and can be used with `degradation`."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method in NEED_MIXING and not isinstance(degradation, Mixing):
        raise ColdbenchError(f"method {method} needs noise or another picture, not {degradation.name}")


def sample(
    restore: Restorer,
    degradation: Degradation,
    x: Tensor,
    drawn: Drawn,
    method: str,
    start: int | None = None,
    stride: int = 1,
    released_shift: bool = False,
    redraw: Callable[[int], Drawn] | None = None,
) -> Iterator[Step]:
    """Restore a batch x (N, C, H, W) that stands at severity `start` (default T), yielding every step.

    The last step's `x` is x_0. `drawn` is what was drawn when x was degraded: the samplers know where the mask lies.
    `stride` severities are taken at a time; `released_shift` (discrepancy D11) takes every D one severity too low,
    as the released code does for snow and colour; `redraw` makes a draw for the methods that need one at every step.
    """
    check(method, degradation)
    update, d = METHODS[method], Operator(degradation, drawn, redraw, t_offset=int(released_shift))
    s = degradation.T if start is None else start
    if not 1 <= s <= degradation.T or stride < 1:
        raise ColdbenchError(f"a trajectory starts at 1…{degradation.T} and steps by 1 or more, not at {s} by {stride}")
    last = s if method == "direct" else 1
    for step in range(s, last - 1, -stride):
        x0_hat = restore(x, step)
        x = update(x, x0_hat, step, max(step - stride, 0), d)
        yield Step(step, x0_hat, x)
