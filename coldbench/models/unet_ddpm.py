"""The DDPM-style network of the released code (protocol 1.4.2), key for key compatible with its checkpoints.

This is the CIFAR-10 network of Ho et al. (2020). The released scripts use it for blur, inpainting and super-resolution
of that data set. Attribute names are those of the checkpoints. Activations are (N, C, H, W) float32, and the network
predicts the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu

from coldbench.core.plugins import network
from coldbench.models.unet_convnext import SinusoidalEmbedding

BLOCKS = 2  # per level on the way down; one more on the way up


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with DDPM's 32 groups, or fewer in a smaller network, so that a group has 4 channels or more.

    The normalisation of a single channel would remove the time that was added to it.
    """
    return nn.GroupNorm(math.gcd(32, channels, max(1, channels // 4)), channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Norm, swish, 3×3 convolution, the time added per channel, the same again with dropout, and a residual."""

    def __init__(self, channels: int, out: int, time_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.temb_proj = nn.Linear(time_dim, out)
        self.norm2 = norm(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h: Tensor = self.conv1(silu(self.norm1(x))) + self.temb_proj(silu(time))[:, :, None, None]
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        shortcut: Tensor = self.nin_shortcut(x)
        return shortcut + h


class AttnBlock(nn.Module):
    """Self-attention of one head over all positions, and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).mT[:, None] for part in (self.q, self.k, self.v))  # (N, 1, positions, channels)
        attended = scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        projected: Tensor = self.proj_out(attended)
        return x + projected


class Downsample(nn.Module):
    """Half the side: one zero at the right and at the bottom, then a 3×3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Twice the side by nearest neighbour, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class Level(nn.Module):
    """The blocks at one side, each followed by attention if this level attends, and the resampling behind them."""

    def __init__(self, widths: Sequence[tuple[int, int]], time_dim: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(width, out, time_dim, dropout) for width, out in widths)
        self.attn = nn.ModuleList(AttnBlock(out) for _, out in widths if attention)

    def step(self, index: int, x: Tensor, time: Tensor) -> Tensor:
        """The block `index` and its attention."""
        x = self.block[index](x, time)
        return self.attn[index](x) if self.attn else x


@network("unet_ddpm")
class UnetDDPM(nn.Module):
    """R: images (N, channels, size, size) in [-1, 1] and time (N,) → restored images, unbounded; time is severity − 1.

    Level l works at the side size / 2^l with dim · dim_mults[l] channels; the level of side `attention` attends.
    Without `time` the network's time input is always 0.
    """

    channels_last = True
    """Its convolutions are faster on a CPU in this memory format (`models.in_fast_format`)."""
    test_params = ({"dim": 8, "dim_mults": [1, 2], "attention": 8},)

    def __init__(
        self,
        channels: int,
        dim: int = 128,
        dim_mults: Sequence[int] = (1, 2, 2, 2),
        size: int = 32,
        attention: int = 16,
        dropout: float = 0.1,
        time: bool = True,
    ) -> None:
        super().__init__()
        self.uses_time = time
        time_dim, widths = 4 * dim, [dim * mult for mult in dim_mults]
        last = len(widths) - 1
        attends = [size // 2**level == attention for level in range(len(widths))]
        self.embedding = SinusoidalEmbedding(dim)
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(dim, time_dim), nn.Linear(time_dim, time_dim)])
        self.conv_in = nn.Conv2d(channels, dim, 3, padding=1)
        skips, width = [dim], dim
        self.down = nn.ModuleList()
        for index, out in enumerate(widths):
            level = Level([(width, out)] + [(out, out)] * (BLOCKS - 1), time_dim, dropout, attends[index])
            skips += [out] * BLOCKS
            if index < last:
                level.downsample = Downsample(out)
                skips.append(out)
            self.down.append(level)
            width = out
        self.mid = nn.Module()
        self.mid.block_1 = ResnetBlock(width, width, time_dim, dropout)
        self.mid.attn_1 = AttnBlock(width)
        self.mid.block_2 = ResnetBlock(width, width, time_dim, dropout)
        up: list[nn.Module] = []
        for index, out in reversed(list(enumerate(widths))):
            entering = [width] + [out] * BLOCKS
            level = Level([(w + skips.pop(), out) for w in entering], time_dim, dropout, attends[index])
            if index > 0:
                level.upsample = Upsample(out)
            up.insert(0, level)
            width = out
        self.up = nn.ModuleList(up)
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        first, second = self.temb.dense  # type: ignore[misc]
        t = second(silu(first(self.embedding(time if self.uses_time else torch.zeros_like(time)))))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            for index in range(BLOCKS):
                x = level.step(index, x, t)  # type: ignore[operator]
                skips.append(x)
            if hasattr(level, "downsample"):
                x = level.downsample(x)  # type: ignore[operator]
                skips.append(x)
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x, t)), t)  # type: ignore[operator]
        for level in reversed(self.up):
            for index in range(BLOCKS + 1):
                x = level.step(index, torch.cat([x, skips.pop()], dim=1), t)  # type: ignore[operator]
            if hasattr(level, "upsample"):
                x = level.upsample(x)  # type: ignore[operator]
        restored: Tensor = self.conv_out(silu(self.norm_out(x)))
        return restored
