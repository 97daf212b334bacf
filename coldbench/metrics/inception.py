"""The features of FID: the 2048 pooled activations of the Inception-v3 of Heusel et al. (2017), under named protocols.

What is called FID differs in the file of weights, in whether images pass through 8 bits, and in how they are enlarged
to 299 pixels (Parmar et al., 2022), so a value carries its protocol in its name:

paper-float        the paper's evaluation code: floats as they are, not clipped, bilinear; the PyTorch port's weights
legacy_pytorch     the same network on 8-bit images, as pytorch-fid has it
legacy_tensorflow  8-bit images, the original network's own enlargement
clean              8-bit images, enlarged by Pillow's antialiased bicubic filter, as clean-fid recommends

The networks are clean-fid's; the weights come from a folder of the user's and are known by their SHA-256.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coldbench.errors import ColdbenchError, NotThere, unknown
from coldbench.files import sha256

SIDE = 299
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """A file of weights: its name, where its authors offer it, and what it must hash to."""

    name: str
    url: str
    sha256: str


PORT = Weights(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
ORIGINAL = Weights(
    "inception-2015-12-05.pt",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
PROTOCOLS = {"paper-float": PORT, "legacy_pytorch": PORT, "legacy_tensorflow": ORIGINAL, "clean": ORIGINAL}


def check(protocol: str, folder: Path) -> Path:
    """The file of weights that `protocol` needs; ColdbenchError if it is unknown, absent or another file."""
    if protocol not in PROTOCOLS:
        raise unknown("FID protocol", protocol, PROTOCOLS)
    wanted = PROTOCOLS[protocol]
    path = folder / wanted.name
    if not path.is_file():
        raise NotThere(f"{path} does not exist: FID ({protocol}) needs the file {wanted.url}")
    if (found := sha256(path)) != wanted.sha256:
        raise ColdbenchError(f"{path} has the SHA-256 {found[:12]}…, not {wanted.sha256[:12]}…: it is not {wanted.url}")
    return path


def extractor(protocol: str, folder: Path, device: torch.device) -> Callable[[Tensor], Features]:
    """The features of images (N, 1 or 3, H, W), float in [0, 1] units, as float32 (N, 2048)."""
    path = check(protocol, folder)
    network = _port(path, device) if PROTOCOLS[protocol] is PORT else _original(path, device)
    prepares: dict[str, Callable[[Tensor], Tensor]] = {
        "paper-float": _as_they_are,
        "legacy_pytorch": functools.partial(_resized, mode="legacy_pytorch"),
        "legacy_tensorflow": lambda x: eight_bit(x).float(),
        "clean": functools.partial(_resized, mode="clean"),
    }
    prepare = prepares[protocol]

    @torch.inference_mode()
    def features(images: Tensor) -> Features:
        colour = images.expand(-1, 3, -1, -1)
        values: Features = network(prepare(colour).to(device)).float().cpu().numpy()
        return values

    return features


def eight_bit(images: Tensor) -> Tensor:
    """What an image file would hold: uint8, clipped and rounded to the nearest level."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def _as_they_are(images: Tensor) -> Tensor:
    enlarged = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return enlarged * 255


def _resized(images: Tensor, mode: str) -> Tensor:
    """8-bit images enlarged by clean-fid's own resizer, one after the other: float in 0…255."""
    from cleanfid.resize import build_resizer

    resize = build_resizer(mode)
    pictures = [resize(picture) for picture in eight_bit(images).permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(pictures).astype(np.float32)).permute(0, 3, 1, 2)


def _port(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The PyTorch port on images of 299 px in 0…255."""
    from cleanfid import inception_pytorch

    weights = torch.load(path, map_location="cpu", weights_only=True)
    # clean-fid would download the weights into its cache: it is handed those of the file instead
    with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=weights):
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
