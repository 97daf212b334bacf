"""The ConvNeXt U-Net of the released code (protocol 1.4.1), key for key compatible with its published checkpoints.

The paper names no architecture, so the published weights are the specification. Attribute names (`ds_conv`, `net`,
`fn`, …) are those of the checkpoints. Activations are (N, C, H, W) float32; the network predicts the clean image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coldbench.core.errors import ColdbenchError
from coldbench.core.plugins import network


class SinusoidalEmbedding(nn.Module):
    """Time (N,) → (N, dim): sines, then cosines, of dim/2 frequencies from 1 to 1/10000."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies = dim // 2

    def forward(self, time: Tensor) -> Tensor:
        steps = torch.arange(self.frequencies, device=time.device)
        angles = time[:, None] * torch.exp(steps * -(math.log(10000) / (self.frequencies - 1)))[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LayerNorm(nn.Module):
    """Normalise over the channels at each position."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # The fused kernel needs no copy of channels-last activations, and its output is channels-last.
        last = nn.functional.layer_norm(x.movedim(1, -1), x.shape[1:2], self.g.flatten(), self.b.flatten(), self.eps)
        return last.movedim(-1, 1)


class ConvNextBlock(nn.Module):
    """Depthwise 7×7, the time added per channel, norm, two 3×3 convolutions, and a residual."""

    def __init__(self, dim: int, dim_out: int, time_dim: int | None, norm: bool = True) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(time_dim, dim)) if time_dim else None
        self.ds_conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.net = nn.Sequential(
            LayerNorm(dim) if norm else nn.Identity(),
            nn.Conv2d(dim, dim_out * 2, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(dim_out * 2, dim_out, 3, padding=1),
        )
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.ds_conv(x)
        if self.mlp is not None:
            h = h + self.mlp(time)[:, :, None, None]
        out: Tensor = self.net(h) + self.res_conv(x)
        return out


class LinearAttention(nn.Module):
    """Attention with a cost linear in the number of positions, because the softmax runs over the keys' positions.

    With a row of x for each position, it is xQ · (softmax(xK)ᵀ · xV) · O. The product in another order is
    x · (Q · context · O), with context = (softmax(xK)ᵀ · x) · V. At many positions with few channels it is faster,
    forward and backward, and needs less memory: of q, k and v only k is computed at every position.
    """

    heads = 4
    width = 32

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.hidden = dim, self.heads * self.width
        self.to_qkv = nn.Conv2d(dim, self.hidden * 3, 1, bias=False)
        self.to_out = nn.Conv2d(self.hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        many = x.shape[2] * x.shape[3] > self.dim and self.dim <= self.hidden
        return self._other_order(x) if many else self._as_written(x)

    def _as_written(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        qkv = self.to_qkv(x).movedim(1, -1).reshape(n, height * width, 3, self.heads, self.width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, positions, width)
        context = k.softmax(dim=-2).mT @ v
        out = (q * self.width**-0.5) @ context
        attended: Tensor = self.to_out(out.movedim(1, 2).reshape(n, height, width, -1).movedim(-1, 1))
        return attended

    def _other_order(self, x: Tensor) -> Tensor:
        n, dim, height, width = x.shape
        to_q, to_k, to_v = self.to_qkv.weight.view(3, self.heads, self.width, dim)
        to_out = self.to_out.weight.view(dim, self.hidden)
        positions = x.movedim(1, -1).reshape(n, height * width, dim)
        keys = nn.functional.conv2d(x, to_k.reshape(self.hidden, dim, 1, 1))
        weights = keys.movedim(1, -1).reshape(n, height * width, self.hidden).softmax(dim=1)
        means = (positions.mT @ weights).mT.reshape(n, self.heads, self.width, dim)
        context = means @ to_v.mT  # (N, heads, width of k, width of v)
        mixing = to_out @ (context.mT @ (to_q * self.width**-0.5)).view(n, self.hidden, dim)
        attended = torch.baddbmm(self.to_out.bias, positions, mixing.mT)  # type: ignore[arg-type]
        return attended.view(n, height, width, dim).movedim(-1, 1)


class PreNorm(nn.Module):
    """Normalise, then `fn`."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x))
        return out


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(x) + x
        return out


def attention(dim: int) -> Residual:
    """x + LinearAttention(LayerNorm(x))."""
    return Residual(PreNorm(dim, LinearAttention(dim)))


def _parts(stage: nn.Module) -> list[nn.Module]:
    """A stage's two blocks, its attention and its resampling."""
    return list(stage.children())


@network("unet_convnext")
class UnetConvNext(nn.Module):
    """R: (N, channels, H, W) in [-1, 1] and time (N,) → the restored (N, channels, H, W), unbounded.

    H and W are multiples of 2^(len(dim_mults) − 1). As in the published network, the skip at full resolution is unused,
    and every stage on the way up enlarges. Without `time` the network has no time path; with `residual` it predicts the
    difference to its input. No experiment of the paper uses either.
    """

    channels_last = True
    """Its convolutions are faster on a CPU in this memory format (`models.in_fast_format`)."""
    test_params = ({"dim": 8, "dim_mults": [1, 2]},)

    def __init__(
        self,
        channels: int,
        dim: int = 64,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        time: bool = True,
        residual: bool = False,
    ) -> None:
        if dim_mults[0] != 1:
            raise ColdbenchError(f"network unet_convnext needs dim_mults that begin with 1, not {dim_mults[0]}")
        super().__init__()
        self.residual = residual
        time_dim = dim if time else None
        widths = [channels, *(dim * m for m in dim_mults)]
        stages = list(itertools.pairwise(widths))
        embedding = SinusoidalEmbedding(dim), nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim)
        self.time_mlp = nn.Sequential(*embedding) if time else None
        self.downs = nn.ModuleList(
            nn.ModuleList(
                [
                    ConvNextBlock(a, b, time_dim, norm=i > 0),
                    ConvNextBlock(b, b, time_dim),
                    attention(b),
                    nn.Conv2d(b, b, 4, 2, 1) if i < len(stages) - 1 else nn.Identity(),
                ]
            )
            for i, (a, b) in enumerate(stages)
        )
        middle = widths[-1]
        self.mid_block1 = ConvNextBlock(middle, middle, time_dim)
        self.mid_attn = attention(middle)
        self.mid_block2 = ConvNextBlock(middle, middle, time_dim)
        self.ups = nn.ModuleList(
            nn.ModuleList(
                [
                    ConvNextBlock(b * 2, a, time_dim),
                    ConvNextBlock(a, a, time_dim),
                    attention(a),
                    nn.ConvTranspose2d(a, a, 4, 2, 1),
                ]
            )
            for a, b in reversed(stages[1:])
        )
        self.final_conv = nn.ModuleList([ConvNextBlock(dim, dim, None), nn.Conv2d(dim, channels, 1)])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        embedded = self.time_mlp(time) if self.time_mlp is not None else time
        image, skips = x, []
        for block1, block2, attend, resample in map(_parts, self.downs):
            x = attend(block2(block1(x, embedded), embedded))
            skips.append(x)
            x = resample(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, embedded)), embedded)
        for block1, block2, attend, resample in map(_parts, self.ups):
            x = torch.cat([x, skips.pop()], dim=1)
            x = resample(attend(block2(block1(x, embedded), embedded)))
        block, head = self.final_conv
        out: Tensor = head(block(x, embedded))
        return out + image if self.residual else out
