"""LPIPS (Zhang et al., 2018) with AlexNet, from weights in a folder; nothing is downloaded."""

import functools
from pathlib import Path

import torch
import torchvision
from torch import Tensor

import coldbench

FILES = ("alexnet-owt-7be5be79.pth", "alex.pth")
"""torchvision's AlexNet, and the linear layers that the authors publish as weights/v0.1/alex.pth."""
LAYERS = (1, 4, 7, 9, 11)
"""Of `AlexNet.features`: the five activations that are compared."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@functools.cache
def load(folder: str) -> tuple[torch.nn.Module, list[Tensor]]:
    """The features of AlexNet, and the weights of their channels."""
    network, linear = (torch.load(Path(folder, name), map_location="cpu", weights_only=True) for name in FILES)
    alexnet = torchvision.models.alexnet(weights=None)
    alexnet.load_state_dict(network)
    layers = alexnet.features[: LAYERS[-1] + 1].eval()
    return layers, [linear[f"lin{number}.model.1.weight"] for number in range(len(LAYERS))]


@coldbench.metric("lpips", best=0.0)
def lpips(originals: Tensor, images: Tensor, *, weights: str) -> Tensor:
    """The distance of each pair, (N,); `weights` is the folder with FILES."""
    features, channels = load(weights)
    shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
    a, b = ((each.cpu().expand(-1, 3, -1, -1) * 2 - 1 - shift) / scale for each in (originals, images))
    total = torch.zeros(len(images))
    for number, layer in enumerate(features):
        a, b = layer(a), layer(b)
        if number in LAYERS:
            unit_a, unit_b = (each / (each.norm(dim=1, keepdim=True) + 1e-10) for each in (a, b))
            weighted = (unit_a - unit_b) ** 2 * channels[LAYERS.index(number)]
            total += weighted.sum(dim=1).mean(dim=(1, 2))
    return total
