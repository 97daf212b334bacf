"""Running a network as the restoration R(x, s) that the samplers call."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from coldbench.core.errors import ColdbenchError
from coldbench.core.sampling_settings import INFERENCE_BATCH

__all__ = ["INFERENCE_BATCH", "Restorer", "compiled", "in_fast_format", "restorer"]

Restorer = Callable[[Tensor, int], Tensor]
"""R(x_s, s): restores a batch (N, C, H, W) whose images all have severity s."""


def compiled(network: nn.Module) -> nn.Module:
    """The network, to be compiled by torch.compile when it first runs; its weights keep their names.

    ColdbenchError if there is no C++ compiler, without which torch.compile fails in the middle of the work.
    """
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in compilers if name):
        raise ColdbenchError("compile needs a C++ compiler such as g++, and none is installed; leave it out")
    network.compile()
    return network


def in_fast_format(network: nn.Module) -> nn.Module:
    """The network, on a CPU in the channels-last memory format if its class says that it is faster so.

    In place: the class has the attribute `channels_last = True`. Its results change by rounding alone.
    """
    weight = next(network.parameters(), None)
    if weight is not None and weight.device.type == "cpu" and getattr(network, "channels_last", False):
        network.to(memory_format=torch.channels_last)
    return network


def restorer(network: nn.Module, inference_batch: int | None = None, precision: str = "fp32") -> Restorer:
    """R(x, s) of a network whose time input is s − 1 (protocol 1.1), in evaluation mode and without gradients.

    With `inference_batch` every forward pass has that many images in one memory format; the last one is filled up with
    copies. A convolution may sum in another order for another batch size, memory format or batch index, so the bits of
    an image then depend on the image and its batch index alone. `precision` is fp32 or bf16 (autocast). The result has
    the dtype of x.
    """
    in_fast_format(network).eval()

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
