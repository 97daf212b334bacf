"""A small embedded feature extractor: local energy in a bank of Gabor filters, and colour on a coarse grid.

It needs no weights and no download, so that every machine computes the same features. It does not recognize objects.
The Fréchet distance on it is called FD-Gabor. It ranks methods within one table and is not comparable with FID.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

NAME = "frechet_gabor"
WAVELENGTHS = (3.0, 6.0, 12.0)
ORIENTATIONS = 4
GRID = 2
CHANNELS = 3
DIMENSIONS = GRID**2 * (len(WAVELENGTHS) * ORIENTATIONS + CHANNELS)


@functools.lru_cache(maxsize=1)
def filters() -> Tensor:
    """Even and odd Gabor filters without DC, unit energy: float32 (2·12, 1, 25, 25)."""
    radius = 12
    row, column = torch.meshgrid(*[torch.arange(-radius, radius + 1, dtype=torch.float64)] * 2, indexing="ij")
    bank = []
    for wavelength in WAVELENGTHS:
        envelope = torch.exp(-(row**2 + column**2) / (2 * (wavelength / 2) ** 2))
        for k in range(ORIENTATIONS):
            angle = math.pi * k / ORIENTATIONS
            phase = 2 * math.pi / wavelength * (column * math.cos(angle) + row * math.sin(angle))
            for wave in (torch.cos(phase), torch.sin(phase)):
                wave = envelope * (wave - (envelope * wave).sum() / envelope.sum())
                bank.append(wave / wave.square().sum().sqrt())
    return torch.stack(bank)[:, None].to(torch.float32)


@torch.inference_mode()
def features(images: Tensor) -> Tensor:
    """Features (N, DIMENSIONS) float64 of images (N, C, H, W) in [0, 1], C 1 or 3, H and W at least 16; not clamped."""
    colour = images.to(torch.float32).expand(-1, CHANNELS, -1, -1)
    grey = colour.mean(dim=1, keepdim=True)
    radius = filters().shape[-1] // 2
    padded = functional.pad(grey, [radius] * 4, mode="reflect")
    waves = functional.conv2d(padded, filters().to(images.device))
    energy = torch.hypot(waves[:, 0::2], waves[:, 1::2])
    pooled = functional.adaptive_avg_pool2d(torch.cat([energy, colour], dim=1), GRID)
    return pooled.flatten(1).double()
