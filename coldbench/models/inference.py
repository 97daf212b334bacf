"""Running a network as the restoration R(x, s) that the samplers call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from coldbench.core.config import INFERENCE_BATCH

__all__ = ["INFERENCE_BATCH", "Restorer", "restorer"]

Restorer = Callable[[Tensor, int], Tensor]
"""R(x_s, s): restores a batch (N, C, H, W) whose images all have severity s."""


def restorer(network: nn.Module, inference_batch: int | None = None, precision: str = "fp32") -> Restorer:
    """R(x, s) of a network whose time input is s − 1 (protocol 1.1), in evaluation mode and without gradients.

    With `inference_batch` every forward pass has that many images in one memory format; the last one is filled up with
    copies. A convolution may sum in another order for another batch size, memory format or batch index, so the bits of
    an image then depend on the image and its batch index alone. `precision` is fp32 or bf16 (autocast). The result has
    the dtype of x.
    """
    network.eval()

    @torch.inference_mode()
    def restore(x: Tensor, s: int) -> Tensor:
        size = inference_batch or len(x)
        padded = x.new_empty(-(-len(x) // size) * size, *x.shape[1:])
        padded[: len(x)], padded[len(x) :] = x, x[:1]
        restored, time = torch.empty_like(padded), torch.full((size,), s - 1, device=x.device)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            for i in range(0, len(padded), size):
                restored[i : i + size] = network(padded[i : i + size], time)
        return restored[: len(x)]

    return restore
