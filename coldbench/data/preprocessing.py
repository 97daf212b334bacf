"""From prepared images to the network's inputs: random windows and flips in training, the centre in testing.

Images are cropped on the device. Every random choice is a function of the seed and of the image's position in the
training, so resumed trainings, other accumulations and more GPUs see the same images (protocol, section 1.3).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Preprocessing
from coldbench.core.images import from_uint8
from coldbench.data import prepared

Images = NDArray[np.uint8]


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return rng.permutation(seed, "training order", epoch, count)


def image_indices(seed: int, position: Tensor, count: int) -> NDArray[np.int64]:
    """The index of the image at each `position` (N,) int64 of a training on `count` images, shuffled every epoch."""
    epochs, places = position // count, position % count
    indices = torch.empty_like(position)
    for epoch in set(epochs.tolist()):
        in_epoch = epochs == epoch
        indices[in_epoch] = _order(seed, epoch, count)[places[in_epoch]]
    return indices.numpy()


def training_images(
    images: Images, settings: Preprocessing, size: int, seed: int, position: Tensor, device: torch.device
) -> Tensor:
    """x0 for `position` (N,) int64 of a training, cropped and flipped: float32 (N, C, size, size) in [-1, 1].

    `images` are the prepared training images, uint8 (M, C, H, H).
    """
    x = torch.from_numpy(images[image_indices(seed, position, len(images))]).to(device, non_blocking=True)
    position = position.to(device)
    if settings.pad:
        x = torch.nn.functional.pad(x, [settings.pad] * 4)
    room = x.shape[-1] - size
    if room or settings.flip:
        corner = rng.integers(seed, "training crop", position, 0, room, draws=2)
        pixel = torch.arange(size, device=device)
        rows = corner[:, :1] + pixel
        columns = corner[:, 1:] + pixel
        if settings.flip:
            flipped = rng.uniform(seed, "training flip", position) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        channel = torch.arange(x.shape[1], device=device)[None, :, None, None]
        image = torch.arange(len(x), device=device)[:, None, None, None]
        x = x[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return x.to(torch.float32) / 255 * 2 - 1


def center_crop(images: Images, size: int) -> Images:
    """The centre size × size of images (N, C, H, W), as a view; its offset is torchvision's, rounded half to even."""
    first = round((images.shape[-1] - size) / 2)
    return images[:, :, first : first + size, first : first + size]


def test_images(images: Images, size: int, where: slice, device: torch.device) -> Tensor:
    """x0 for the prepared test images `where`: float32 (N, C, size, size) in [-1, 1]."""
    return from_uint8(np.ascontiguousarray(center_crop(images[where], size)), device)


def check_prepared(experiment: Experiment, folder: Path, partner: Path | None) -> None:
    """Raise ColdbenchError unless `folder` and `partner` hold the data sets of `experiment` at its prepared size."""
    expected = [(folder, experiment.dataset), *([(partner, experiment.partner)] if partner else [])]
    for place, name in expected:
        description = prepared.info(place)
        if (description["name"], description["size"]) != (name, experiment.prepared_size):
            raise ColdbenchError(
                f"{place} holds {description['name']} at {description['size']} pixels, but the experiment uses {name} "
                f"at {experiment.prepared_size}; prepare it with coldbench prepare"
            )
