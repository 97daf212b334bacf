"""The degradations step by step in plain torch: the oracles of the tests.

Each function returns D(x, t) for images x in float64, one severity t and what was drawn for the images. It reads
parameters of the degradation `d` and calls none of its methods.
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
    """One two-dimensional convolution of an explicitly padded image with a Gaussian that may be wider."""
    size, reach = x.shape[-1], kernel // 2
    source = torch.arange(-reach, size + reach)
    if padding == "circular":
        source = source % size
    else:  # mirrored at the centres of the outermost pixels
        source = source % (2 * size - 2)
        source = torch.minimum(source, 2 * size - 2 - source)
    weights = torch.outer(line(kernel, std), line(kernel, std)).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x[:, :, source][..., source], weights, groups=x.shape[1])


def blur(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """t blurs, or one with the summed variance; where quantized, severity T is the mean."""
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
    """One Gaussian mask around `centre` (N, 2): the image has the weight 1 − exp(−d²/2σ²), `fill` has the rest."""
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
    """Outwards: one mask after another. Inwards: the image keeps what T − t masks would have hidden."""
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
    """Shrink the result of the last step, and enlarge it again."""
    mode = {"mode": "area"} if d.reduce == "average" else {"mode": d.reduce, "align_corners": False}
    for i in range(t):
        side = d.size // 2 ** (i + 1) if d.schedule == "halving" else d.size - i
        x = functional.interpolate(x, size=(side, side), **mode)
        x = functional.interpolate(x, size=(d.size, d.size), mode="nearest-exact")
    return x


def decolorization(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """A 1 × 1 convolution per step, which leaves a share of the colour."""
    weights = {"mean": [1 / 3, 1 / 3, 1 / 3], "luma": [0.299, 0.587, 0.114]}[d.grey]
    grey = torch.tensor([weights] * 3, dtype=torch.float64)
    for i in range(t):
        share = (d.T - i - 1) / (d.T - i) if d.schedule == "linear" else d.keep
        share = 0 if d.total and i == d.T - 1 else share
        x = functional.conv2d(x, (share * torch.eye(3, dtype=torch.float64) + (1 - share) * grey)[..., None, None])
    return x


def mixing(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """The cosine schedule, β by β."""

    def f(j: int) -> float:
        return math.cos((j / d.T + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha = math.prod(1 - min(1 - f(j) / f(j - 1), 0.999) for j in range(1, t + 1))
    return math.sqrt(alpha) * x + math.sqrt(1 - alpha) * drawn["z"][:, : x.shape[1]].double()


def snow(d: Any, x: Tensor, t: int, drawn: Drawn) -> Tensor:
    """The snow of one severity from the flakes, image by image."""
    if t == 0:
        return x
    progress = (t - 1) / (d.T - 1) if d.T > 1 else 0.0
    ends = (d.constants.threshold, d.constants.motion, d.constants.brightness)
    threshold, std, brightness = (first + (last - first) * progress for first, last in ends)
    weights = line(d.constants.kernel, std)[None, None]
    result = []
    for image, flakes, vertical in zip((x + 1) / 2, drawn["flakes"], drawn["vertical"], strict=True):
        strips = (flakes * (flakes >= threshold)).clamp(0, 1)
        strips = strips.T if vertical else strips
        blurred = functional.conv1d(strips[:, None], weights, padding=d.constants.kernel // 2)[:, 0]
        layer = blurred.T if vertical else blurred
        if not d.fix_brightness:
            grey = image[0]
            if len(image) == 3:
                grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
            image = brightness * image + (1 - brightness) * torch.maximum(image, 1.5 * grey + 0.5)
        result.append((image + layer + torch.rot90(layer, 2)).clamp(0, 1))
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
