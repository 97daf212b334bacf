"""Restoration networks R(x_t, t) by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from coldbench.errors import unknown
from coldbench.experiment import Network
from coldbench.models.unet_convnext import UnetConvNext

NETWORKS: dict[str, Callable[..., nn.Module]] = {"unet_convnext": UnetConvNext}

Restorer = Callable[[Tensor, int], Tensor]
"""R(x_s, s): restores a whole batch that stands at severity s."""


def build(network: Network, channels: int) -> nn.Module:
    """The network of an experiment with freshly initialised weights; ColdbenchError if its name is unknown."""
    check_name(network.name)
    return NETWORKS[network.name](channels=channels, dim=network.dim, dim_mults=tuple(network.dim_mults))


def check_name(name: str) -> None:
    """Raise ColdbenchError unless `name` is a network."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)


def restorer(network: nn.Module) -> Restorer:
    """R(x, s) of a network whose time input is s − 1 (protocol 1.1), in evaluation mode and without gradients."""
    network.eval()

    @torch.inference_mode()
    def restore(x: Tensor, s: int) -> Tensor:
        time = torch.full((len(x),), s - 1, device=x.device)
        restored: Tensor = network(x, time)
        return restored

    return restore
