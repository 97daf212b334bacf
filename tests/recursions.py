"""The degradations once more, the long way: step by step in plain torch, for the tests to compare with.

Each function gets a degradation `d` to read its parameters from (none of its methods is used), images x in float64, a
severity t and what was drawn for the images, and returns D(x, t).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from coldbench.degradations import Drawn

Recursion = Callable[[Any, Tensor, int, Drawn], Tensor]


def line(kernel: int, std: float) -> Tensor:
    """Normalised Gaussian weights of `kernel` pixels, float64."""
    weights = torch.exp(-(torch.arange(kernel, dtype=torch.float64) - kernel // 2).square() / (2 * std**2))
    return weights / weights.sum()


def convolved(x: Tensor, kernel: int, std: float, padding: str) -> Tensor:
    """One two-dimensional convolution of an explicitly padded picture with a Gaussian that may be wider."""
    size, reach = x.shape[-1], kernel // 2
    places = torch.arange(-reach, size + reach)
    if padding == "circular":
        places = places % size
    else:  # mirrored at the centres of the outermost pixels
        places = places % (2 * size - 2)
        places = torch.minimum(places, 2 * size - 2 - places)
    weights = torch.outer(line(kernel, std), line(kernel, std)).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x[:, :, places][..., places], weights, groups=x.shape[1])


def blur(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """Blur t times over, or once with the summed variance; where discrete, the mean of the last result."""
    stds = [
        {"constant": d.std, "linear": d.std + d.rate * i, "exponential": d.std * math.exp(d.rate * i)}[d.schedule]
        for i in range(t)
    ]
    if d.composition == "kernel" and t > 0:
        total = math.sqrt(sum(std**2 for std in stds))
        x = convolved(x, 2 * math.ceil(9 * total) + 1, total, d.padding)
    else:
        for i, std in enumerate(stds):
            x = convolved(x, d.kernel + d.kernel_rate * i, std, d.padding)
    if d.quantized and t == d.T:
        x = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    return x


def masked(d: Any, x: Tensor, centre: Tensor, std: float, fill: Tensor) -> Tensor:
    """One Gaussian mask around `centre` (N, 2): the picture survives by 1 − exp(−d²/2σ²), the rest is `fill`."""
    pixels = torch.arange(d.size)
    row, column = (pixels - centre[:, [axis]] for axis in (0, 1))
    distance2 = row.square()[:, None, :, None] + column.square()[:, None, None, :]
    mask = 1 - torch.exp(-distance2.double() / (2 * std**2))
    return fill + (x - fill) * mask


def inpainting(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """One mask after another."""
    for i in range(t):
        width = d.std + d.rate * i
        std = width if d.width == "std" else math.sqrt(width)
        x = masked(d, x, drawn["centre"], std, torch.tensor(d.fill, dtype=x.dtype))
    return x


def inpainting_generation(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """Outwards: one mask after another. Inwards: the picture keeps what T − t masks would have hidden."""
    colour = drawn["colour"][:, : x.shape[1], None, None].double()
    centre = torch.full((len(x), 2), d.size / 2 - 1)
    if d.order == "outwards":
        for i in range(t):
            x = masked(d, x, centre, d.std + d.rate * i, colour)
        return x
    hidden = colour - x
    for i in range(d.T - t):
        hidden = masked(d, hidden, centre, d.std + d.rate * i, torch.zeros(()))
    return x + hidden if t > 0 else x


def superresolution(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """Shrink what the last step left, and enlarge it again."""
    how = {"mode": "area"} if d.reduce == "average" else {"mode": d.reduce, "align_corners": False}
    for i in range(t):
        side = d.size // 2 ** (i + 1) if d.schedule == "halving" else d.size - i
        x = functional.interpolate(x, size=(side, side), **how)
        x = functional.interpolate(x, size=(d.size, d.size), mode="nearest-exact")
    return x


def decolorization(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """A 1 × 1 convolution per step that keeps the share `kept` of the colour."""
    weights = {"mean": [1 / 3, 1 / 3, 1 / 3], "luma": [0.299, 0.587, 0.114]}[d.grey]
    grey = torch.tensor([weights] * 3, dtype=torch.float64)
    for i in range(t):
        kept = (d.T - i - 1) / (d.T - i) if d.schedule == "linear" else d.keep
        kept = 0 if d.total and i == d.T - 1 else kept
        x = functional.conv2d(x, (kept * torch.eye(3, dtype=torch.float64) + (1 - kept) * grey)[..., None, None])
    return x


def mixing(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """The cosine schedule, β by β."""

    def f(j: int) -> float:
        return math.cos((j / d.T + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha = math.prod(1 - min(1 - f(j) / f(j - 1), 0.999) for j in range(1, t + 1))
    return math.sqrt(alpha) * x + math.sqrt(1 - alpha) * drawn["z"][:, : x.shape[1]].double()


def snow(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """One level of snow from the flakes, image by image."""
    if t == 0:
        return x
    share = (t - 1) / (d.T - 1) if d.T > 1 else 0.0
    ends = (d.constants.threshold, d.constants.motion, d.constants.brightness)
    threshold, std, kept = (first + (last - first) * share for first, last in ends)
    weights = line(d.constants.kernel, std)[None, None]
    result = []
    for picture, flakes, vertical in zip((x + 1) / 2, drawn["flakes"], drawn["vertical"], strict=True):
        strips = (flakes * (flakes >= threshold)).clamp(0, 1)
        strips = strips.T if vertical else strips
        blurred = functional.conv1d(strips[:, None], weights, padding=d.constants.kernel // 2)[:, 0]
        layer = blurred.T if vertical else blurred
        if not d.fix_brightness:
            grey = picture[0]
            if len(picture) == 3:
                grey = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
            picture = kept * picture + (1 - kept) * torch.maximum(picture, 1.5 * grey + 0.5)
        result.append((picture + layer + torch.rot90(layer, 2)).clamp(0, 1))
    return 2 * torch.stack(result) - 1


RECURSIONS: dict[str, Recursion] = {
    "animorphosis": mixing,
    "blur": blur,
    "decolorization": decolorization,
    "inpainting": inpainting,
    "inpainting_generation": inpainting_generation,
    "noise": mixing,
    "snow": snow,
    "superresolution": superresolution,
}
