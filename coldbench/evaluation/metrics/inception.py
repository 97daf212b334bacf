"""The features of FID: the 2048 pooled activations of the Inception-v3 of Heusel et al. (2017), under named protocols.

Implementations of FID differ in the file of weights, in whether images pass through 8 bits, and in how they are
enlarged to 299 pixels (Parmar et al., 2022). So a value carries its protocol in its name:

paper-float        the paper's evaluation code: unclipped floats, bilinear; the weights of the PyTorch port
legacy_pytorch     the same network on 8-bit images, as in pytorch-fid
legacy_tensorflow  8-bit images, enlarged by the original network
clean              8-bit images, enlarged by Pillow's antialiased bicubic filter, as clean-fid recommends

The networks are those of clean-fid. The weights come from a folder and are checked by their SHA-256 (see `weights`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coldbench.core.images import to_uint8
from coldbench.evaluation.metrics import weights

SIDE = 299
BATCH = 50  # enlarged images at a time, as in the released evaluation
Features = npt.NDArray[np.float32]


def extractor(protocol: str, folder: Path, device: torch.device) -> Callable[[Tensor], Features]:
    """The function from images (N, 1 or 3, H, W), float in [0, 1], to features, float32 (N, 2048).

    ColdbenchError for an unknown protocol, or if its weights are missing or damaged.
    """
    path = weights.check(protocol, folder)
    network = _port(path, device) if protocol in ("paper-float", "legacy_pytorch") else _original(path, device)
    prepares: dict[str, Callable[[Tensor], Tensor]] = {
        "paper-float": _unclipped,
        "legacy_pytorch": functools.partial(_resized, mode="legacy_pytorch"),
        "legacy_tensorflow": lambda x: to_uint8(x).float(),
        "clean": functools.partial(_resized, mode="clean"),
    }
    prepare = prepares[protocol]

    @torch.inference_mode()
    def features(images: Tensor) -> Features:
        parts = [network(prepare(x.expand(-1, 3, -1, -1)).to(device)).float().cpu() for x in torch.split(images, BATCH)]
        values: Features = torch.cat(parts).numpy()
        return values

    return features


def _unclipped(images: Tensor) -> Tensor:
    enlarged = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return enlarged * 255


def _resized(images: Tensor, mode: str) -> Tensor:
    """8-bit images enlarged one by one by the resizer of clean-fid, float in 0…255."""
    from cleanfid.resize import build_resizer

    resize = build_resizer(mode)
    enlarged = [resize(image) for image in to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(enlarged).astype(np.float32)).permute(0, 3, 1, 2)


def _port(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The PyTorch port, for images of 299 px in 0…255."""
    from cleanfid import inception_pytorch

    values = torch.load(path, map_location="cpu", weights_only=True)
    # clean-fid downloads the weights into its cache, so its download is replaced by the file
    with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=values):
        network: nn.Module = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False)
    network = network.eval().to(device)
    return lambda x: network(x / 255)[0][:, :, 0, 0]


def _original(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The original network (TorchScript), for images in 0…255. It enlarges images of another size than 299 px."""
    network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]

    def features(x: Tensor) -> Tensor:
        if x.shape[-1] == SIDE:
            pooled: Tensor = network.layers.forward((x - 128) / 128)
        else:
            pooled = network(x, return_features=True)
        return pooled.reshape(len(x), -1)

    return features
