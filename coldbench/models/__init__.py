"""Restoration networks R(x_t, t) by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Network
from coldbench.models.unet_convnext import UnetConvNext
from coldbench.models.unet_ddpm import UnetDDPM

Restorer = Callable[[Tensor, int], Tensor]
"""R(x_s, s): restores a whole batch that stands at severity s."""


INFERENCE_BATCH = {"cpu": 16, "cuda": 64}
"""Images that a network sees at once when it samples, by the type of device, where nothing else is said."""


def _convnext(network: Network, channels: int, size: int) -> nn.Module:
    if network.dropout:
        raise ColdbenchError(f"network unet_convnext has no dropout, but dropout is {network.dropout:g}")
    mults = tuple(network.dim_mults)
    if mults[0] != 1:
        raise ColdbenchError(f"network unet_convnext needs dim_mults that begin with 1, not {mults[0]}")
    return UnetConvNext(channels, network.dim, mults, time=network.time, residual=network.residual)


def _ddpm(network: Network, channels: int, size: int) -> nn.Module:
    if network.residual:
        raise ColdbenchError("network unet_ddpm has no residual form")
    return UnetDDPM(
        channels,
        network.dim,
        tuple(network.dim_mults),
        size=size,
        attention=network.attention,
        dropout=network.dropout,
        time=network.time,
    )


NETWORKS: dict[str, Callable[[Network, int, int], nn.Module]] = {"unet_convnext": _convnext, "unet_ddpm": _ddpm}


def build(network: Network, channels: int, size: int) -> nn.Module:
    """The network of an experiment for (N, channels, size, size) images, with freshly initialised weights.

    Raises ColdbenchError if its name is unknown, or if it cannot be as described.
    """
    if network.name not in NETWORKS:
        raise unknown("network", network.name, NETWORKS)
    stages = len(network.dim_mults)
    if size % 2 ** (stages - 1):
        raise ColdbenchError(
            f"network {network.name} with {stages} stages needs a side that is a multiple of {2 ** (stages - 1)}, "
            f"not {size}"
        )
    return NETWORKS[network.name](network, channels, size)


def restorer(network: nn.Module, inference_batch: int | None = None, precision: str = "fp32") -> Restorer:
    """R(x, s) of a network whose time input is s − 1 (protocol 1.1), in evaluation mode and without gradients.

    With `inference_batch` the network always sees that many images at once, the last ones completed by repetition, and
    laid out in one way: a convolution may sum in another order for another batch size or memory format, or at another
    place in the batch. An image's bits then depend on itself and its place in the batch. precision: fp32 or bf16
    (autocast); what is returned has the dtype of x.
    """
    network.eval()

    @torch.inference_mode()
    def restore(x: Tensor, s: int) -> Tensor:
        size = inference_batch or len(x)
        shown = x.new_empty(-(-len(x) // size) * size, *x.shape[1:])
        shown[: len(x)], shown[len(x) :] = x, x[:1]
        restored, time = torch.empty_like(shown), torch.full((size,), s - 1, device=x.device)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            for i in range(0, len(shown), size):
                restored[i : i + size] = network(shown[i : i + size], time)
        return restored[: len(x)]

    return restore
