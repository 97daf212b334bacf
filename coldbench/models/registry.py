"""The networks by name, and how one is built from its description in an experiment."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Network
from coldbench.models.unet_convnext import UnetConvNext
from coldbench.models.unet_ddpm import UnetDDPM


def _convnext(network: Network, channels: int, size: int) -> nn.Module:
    if network.dropout:
        raise ColdbenchError(f"network unet_convnext has no dropout, but dropout is {network.dropout:g}")
    if network.dim_mults[0] != 1:
        raise ColdbenchError(f"network unet_convnext needs dim_mults that begin with 1, not {network.dim_mults[0]}")
    return UnetConvNext(channels, network.dim, network.dim_mults, time=network.time, residual=network.residual)


def _ddpm(network: Network, channels: int, size: int) -> nn.Module:
    if network.residual:
        raise ColdbenchError("network unet_ddpm has no residual form")
    return UnetDDPM(
        channels,
        network.dim,
        network.dim_mults,
        size=size,
        attention=network.attention,
        dropout=network.dropout,
        time=network.time,
    )


NETWORKS: dict[str, Callable[[Network, int, int], nn.Module]] = {"unet_convnext": _convnext, "unet_ddpm": _ddpm}


def build(network: Network, channels: int, size: int) -> nn.Module:
    """The network that an experiment describes, for (N, channels, size, size) images, with newly initialised weights.

    Raises ColdbenchError for an unknown name, a side that its stages cannot halve, and an option that it does not have.
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
