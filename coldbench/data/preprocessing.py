"""From prepared images to what the network sees: random windows and flips in training, the middle in testing.

Cropping happens on the device, and every random choice is a function of the seed and the number of images seen, so a
resumed training, another accumulation or more GPUs see the same pictures (protocol 1.3).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Preprocessing
from coldbench.core.images import from_uint8

Images = npt.NDArray[np.uint8]


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return rng.permutation(seed, "training order", epoch, count)


def chosen(seed: int, position: Tensor, count: int) -> npt.NDArray[np.int64]:
    """Which of `count` images stand at `position` (N,) int64 of the endless sequence, reshuffled every epoch."""
    epochs, places = position // count, position % count
    result = torch.empty_like(position)
    for epoch in set(epochs.tolist()):
        here = epochs == epoch
        result[here] = _order(seed, epoch, count)[places[here]]
    return result.numpy()


def training_images(
    images: Images, pipeline: Preprocessing, size: int, seed: int, position: Tensor, device: torch.device
) -> Tensor:
    """x0 for the images at `position`, cropped and flipped: float32 (N, C, size, size) in [-1, 1]."""
    x = torch.from_numpy(images[chosen(seed, position, len(images))]).to(device, non_blocking=True)
    position = position.to(device)
    if pipeline.pad:
        x = torch.nn.functional.pad(x, [pipeline.pad] * 4)
    room = x.shape[-1] - size
    if room or pipeline.flip:
        corner = rng.integers(seed, "training crop", position, 0, room, draws=2)
        pixel = torch.arange(size, device=device)
        rows = corner[:, :1] + pixel
        columns = corner[:, 1:] + pixel
        if pipeline.flip:
            flipped = rng.uniform(seed, "training flip", position) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        channel = torch.arange(x.shape[1], device=device)[None, :, None, None]
        image = torch.arange(len(x), device=device)[:, None, None, None]
        x = x[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return x.to(torch.float32) / 255 * 2 - 1


def middle(images: Images, size: int) -> Images:
    """The middle size × size of prepared images (N, C, H, W): a view; torchvision's offset, rounded half to even."""
    first = round((images.shape[-1] - size) / 2)
    return images[:, :, first : first + size, first : first + size]


def test_images(images: Images, size: int, where: slice, device: torch.device) -> Tensor:
    """x0 for the test images `where`: float32 (N, C, size, size) in [-1, 1]."""
    return from_uint8(np.ascontiguousarray(middle(images[where], size)), device)


def check_prepared(experiment: Experiment, prepared: Path, partner: Path | None) -> None:
    """Raise ColdbenchError unless the prepared data sets are those that `experiment` names, at its size."""
    wanted = [(prepared, experiment.dataset), *([(partner, experiment.partner)] if partner else [])]
    for folder, name in wanted:
        about = data.info(folder)
        if (about["name"], about["size"]) != (name, experiment.prepared_size):
            raise ColdbenchError(
                f"{folder} holds {about['name']} at {about['size']} pixels, but the experiment is of {name} at "
                f"{experiment.prepared_size}; make it with coldbench prepare"
            )
