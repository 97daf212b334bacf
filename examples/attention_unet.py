"""A small U-Net with self-attention at its bottom."""

import itertools
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

import coldbench


class Block(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm, self.time = nn.GroupNorm(1, width), nn.Linear(1, width)
        self.skip = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = nn.functional.gelu(self.norm(self.first(x)) + self.time(time)[:, :, None, None])
        return self.skip(x) + self.second(h)


@coldbench.network("attention_unet")
class AttentionUNet(nn.Module):
    """R(x_t, t): `levels` halvings, `width` channels that double at each, attention of `heads` heads at the bottom."""

    def __init__(
        self,
        channels: int,
        width: Annotated[int, Field(ge=4, le=256, multiple_of=4)] = 16,
        levels: Annotated[int, Field(ge=1, le=4)] = 2,
        heads: Annotated[int, Field(ge=1, le=4)] = 2,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.start = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(widths))
        self.attention = nn.MultiheadAttention(widths[-1], heads, batch_first=True)
        self.up = nn.ModuleList(Block(a + b, a) for a, b in reversed(list(itertools.pairwise(widths))))
        self.end = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time, h, skips = torch.log1p(t.to(x.dtype))[:, None], self.start(x), []
        for block in self.down:
            skips.append(h)
            h = nn.functional.avg_pool2d(block(h, time), 2)
        tokens = h.flatten(2).mT
        h = h + self.attention(tokens, tokens, tokens, need_weights=False)[0].mT.unflatten(2, h.shape[-2:])
        for block in self.up:
            h = block(torch.cat([nn.functional.interpolate(h, scale_factor=2.0), skips.pop()], dim=1), time)
        return x + self.end(h)
