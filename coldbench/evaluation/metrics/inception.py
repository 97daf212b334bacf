"""The features of FID: the 2048 pooled activations of the Inception-v3 of Heusel et al. (2017), under named protocols.

What is called FID differs in the file of weights, in whether images pass through 8 bits, and in how they are enlarged
to 299 pixels (Parmar et al., 2022), so a value carries its protocol in its name:

paper-float        the paper's evaluation code: floats as they are, not clipped, bilinear; the PyTorch port's weights
legacy_pytorch     the same network on 8-bit images, as pytorch-fid has it
legacy_tensorflow  8-bit images, the original network's own enlargement
clean              8-bit images, enlarged by Pillow's antialiased bicubic filter, as clean-fid recommends

The networks are clean-fid's; the weights come from a folder and are known by their SHA-256 (see `weights`).
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
BATCH = 50  # enlarged images at once: the released evaluation's number, and little memory
Features = npt.NDArray[np.float32]


def extractor(protocol: str, folder: Path, device: torch.device) -> Callable[[Tensor], Features]:
    """The features of images (N, 1 or 3, H, W), float in [0, 1] units, as float32 (N, 2048)."""
    path = weights.check(protocol, folder)
    network = _port(path, device) if protocol in ("paper-float", "legacy_pytorch") else _original(path, device)
    prepares: dict[str, Callable[[Tensor], Tensor]] = {
        "paper-float": _as_they_are,
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


def _as_they_are(images: Tensor) -> Tensor:
    enlarged = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return enlarged * 255


def _resized(images: Tensor, mode: str) -> Tensor:
    """8-bit images enlarged by clean-fid's own resizer, one after the other: float in 0…255."""
    from cleanfid.resize import build_resizer

    resize = build_resizer(mode)
    pictures = [resize(picture) for picture in to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(pictures).astype(np.float32)).permute(0, 3, 1, 2)


def _port(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The PyTorch port on images of 299 px in 0…255."""
    from cleanfid import inception_pytorch

    values = torch.load(path, map_location="cpu", weights_only=True)
    # clean-fid would download the weights into its cache: it is handed those of the file instead
    with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=values):
        network: nn.Module = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False)
    network = network.eval().to(device)
    return lambda x: network(x / 255)[0][:, :, 0, 0]


def _original(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The original network (TorchScript) on images in 0…255: those of 299 px as they are, others enlarged by itself."""
    network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]

    def features(x: Tensor) -> Tensor:
        if x.shape[-1] == SIDE:
            pooled: Tensor = network.layers.forward((x - 128) / 128)
        else:
            pooled = network(x, return_features=True)
        return pooled.reshape(len(x), -1)

    return features
