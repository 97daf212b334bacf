"""The ranges of an image: 8-bit levels, [-1, 1] and [0, 1]."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coldbench.core.images import batches, from_uint8, to_uint8, to_unit_interval


def test_all_256_levels_survive_the_way_to_the_networks_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    x = from_uint8(pixels, torch.device("cpu"))
    assert (x.min(), x.max(), x.dtype) == (-1, 1, torch.float32)
    np.testing.assert_array_equal(to_uint8(to_unit_interval(x)).numpy(), pixels)


def test_values_are_clamped_and_rounded_half_to_even() -> None:
    levels = torch.tensor([-3.0, 0.5, 1.5, 254.5, 300.0])
    assert to_uint8(levels / 255).tolist() == [0, 0, 2, 254, 255]


@pytest.mark.parametrize("side", [16, 64, 128, 1024])
@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1203])
def test_batches_cover_each_image_once_in_order(count: int, side: int) -> None:
    parts = [range(count)[part] for part in batches(count, side)]
    assert [index for part in parts for index in part] == [*range(count)]
    assert all(0 < len(part) <= 500 for part in parts)


@pytest.mark.parametrize("side", [64, 65, 128, 299, 1024])
def test_a_batch_of_larger_images_has_no_more_pixels(side: int) -> None:
    most = max(part.stop - part.start for part in batches(1203, side))
    assert most * side**2 <= 500 * 64**2 < (most + 1) * side**2


def test_an_image_may_be_larger_than_a_batch() -> None:
    assert batches(2, 10**4) == [slice(0, 1), slice(1, 2)]
