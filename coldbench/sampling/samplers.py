"""The samplers of the paper: direct reconstruction, Algorithm 1 (naive), Algorithm 2 (TACoS), and those for noise.

All go from x_T to x_0. They differ only in how x_r, the next iterate, follows from x_s and x̂_0 = R(x_s, s). Nothing is
clamped, so iterates may leave [-1, 1] (protocol, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.degradations import Degradation, Drawn
from coldbench.degradations.mixing import Mixing
from coldbench.models import Restorer


@dataclass(frozen=True)
class Step:
    """One reverse step: its severity s, the prediction x̂_0 = R(x_s, s), and the result x_r, each (N, C, H, W)."""

    s: int
    x0_hat: Tensor
    x: Tensor


@dataclass(frozen=True)
class Operator:
    """D for one batch.

    `drawn` was drawn when the batch was degraded; `redraw` draws again for one severity. D is evaluated `t_offset`
    severities too low, because the released snow and colour samplers do so (discrepancy D11).
    """

    degradation: Degradation
    drawn: Drawn
    redraw: Callable[[int], Drawn] | None = None
    t_offset: int = 0

    def __call__(self, x0: Tensor, s: int, drawn: Drawn | None = None) -> Tensor:
        """D(x0, s) for the whole batch at one severity, by `drawn` or by another draw."""
        t = torch.full((len(x0),), max(s - self.t_offset, 0), device=x0.device)
        return self.degradation(x0, t, self.drawn if drawn is None else drawn)

    def redrawn(self, s: int) -> Drawn:
        """A new draw for severity s."""
        if self.redraw is None:
            raise ColdbenchError("redraw is missing: this method draws at every step")
        return self.redraw(s)

    @property
    def mixing(self) -> Mixing:
        """The degradation as one that mixes with noise or another image; `check` has refused any other."""
        assert isinstance(self.degradation, Mixing)
        return self.degradation


def direct(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """x_0 = R(x_T, T), direct reconstruction: the first prediction is the result."""
    return x0_hat


def naive(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 1: x_{s−1} = D(x̂_0, s−1)."""
    return d(x0_hat, r)


def tacos(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2, Transformation Agnostic Cold Sampling: x_{s−1} = x_s − D(x̂_0, s) + D(x̂_0, s−1).

    For noise this is the paper's fixed noise, because z is part of the draw.
    """
    return x - d(x0_hat, s) + d(x0_hat, r)


def estimated(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2 with ẑ = (x_s − √ᾱ_s x̂_0) / √(1 − ᾱ_s) instead of z: deterministic DDIM (appendix A.6)."""
    return d(x0_hat, r, {"z": d.mixing.estimate_z(x, x0_hat, s)})


def resampled(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2 with a new z at every step (section 5.1, the first of its three options)."""
    drawn = d.redrawn(s)
    return x - d(x0_hat, s, drawn) + d(x0_hat, r, drawn)


def naive_resampled(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 1 with a new z at every step."""
    return d(x0_hat, r, d.redrawn(s))


def ddpm(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """DDPM (Ho et al., 2020) in the form of Song et al. (2021): ẑ as in DDIM, plus noise with the posterior's σ_s."""
    z = d.mixing.estimate_z(x, x0_hat, s)
    keep, sigma = d.mixing.posterior(s, r)
    return d(x0_hat, r, {"z": keep * z + sigma * d.redrawn(s)["z"][:, : x.shape[1]].to(x.dtype)})


@dataclass(frozen=True)
class Method:
    """An update rule x_r = update(x_s, x̂_0, s, r, D), and whether it estimates the z that the images were mixed with.

    Only degradations that mix (noise and animorphosis) have such a z.
    """

    update: Callable[[Tensor, Tensor, int, int, Operator], Tensor]
    estimates_z: bool = False


METHODS = {
    "direct": Method(direct),
    "naive": Method(naive),
    "tacos": Method(tacos),
    "estimated": Method(estimated, estimates_z=True),
    "resampled": Method(resampled),
    "naive_resampled": Method(naive_resampled),
    "ddpm": Method(ddpm, estimates_z=True),
}


@dataclass(frozen=True)
class Recorder(Operator):
    """Degrades nothing, and records in `sources` which draws a method asks for: `drawn` or `redrawn`."""

    sources: set[str] = field(default_factory=set)

    def __call__(self, x0: Tensor, s: int, drawn: Drawn | None = None) -> Tensor:
        """x0; at severity 0 no draw has an effect."""
        if drawn is None and s > self.t_offset:
            self.sources.add("drawn")
        return x0

    def redrawn(self, s: int) -> Drawn:
        """A draw of one pixel."""
        self.sources.add("redrawn")
        return {"z": torch.zeros(1, 3, 1, 1)}


def sources(
    method: str, degradation: Degradation, start: int, stride: int = 1, released_shift: bool = False
) -> set[str]:
    """The draws that decide the result of a method: `drawn` with the images, or `redrawn` for a step."""
    recorder, x = Recorder(degradation, {}, t_offset=int(released_shift)), torch.zeros(1, 3, 1, 1)
    for s in range(start, 0, -stride):
        METHODS[method].update(x, x, s, max(s - stride, 0), recorder)
    return recorder.sources


def check(method: str, degradation: Degradation) -> None:
    """Raise ColdbenchError unless `method` is one of METHODS and fits `degradation`."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if METHODS[method].estimates_z and not isinstance(degradation, Mixing):
        raise ColdbenchError(f"method {method} needs noise or another image, not {degradation.name}")


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
    """Restore a batch x (N, C, H, W) at severity `start` (default T) and yield every step; the last step's x is x_0.

    The sampler knows what was `drawn` when x was degraded, for example where the mask lies. A step spans `stride`
    severities. `released_shift` evaluates every D one severity too low, as the released code does for snow and colour
    (discrepancy D11). `redraw` draws for one severity; the methods that draw at every step need it.

    Raises ColdbenchError for a method that `check` refuses, a start outside 1…T, or a stride below 1.
    """
    check(method, degradation)
    update, d = METHODS[method].update, Operator(degradation, drawn, redraw, t_offset=int(released_shift))
    s = degradation.T if start is None else start
    if not 1 <= s <= degradation.T or stride < 1:
        raise ColdbenchError(f"severity {s} with stride {stride} is out of range: 1…{degradation.T} by 1 or more")
    last = s if method == "direct" else 1
    for step in range(s, last - 1, -stride):
        x0_hat = restore(x, step)
        x = update(x, x0_hat, step, max(step - stride, 0), d)
        yield Step(step, x0_hat, x)
