"""From prepared images to the network: windows and flips in training, the centre in testing (protocol, section 1.3).

The oracle slices each image alone; image, corner and flip come from `rng`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2 as transforms

from coldbench import degradations
from coldbench.core import rng
from coldbench.core.experiment import Experiment, Preprocessing
from coldbench.core.images import from_uint8
from coldbench.data import preprocessing
from coldbench.training import loop

CPU = torch.device("cpu")
SIZE = 16
SETTINGS = {
    "default": (Preprocessing(), SIZE),
    "flip": (Preprocessing(flip=True), SIZE),
    "pad": (Preprocessing(pad=3), SIZE),
    "pad and flip": (Preprocessing(pad=4, flip=True), SIZE),
    "resize": (Preprocessing(resize=19), 19),
    "resize and flip": (Preprocessing(resize=19, flip=True), 19),
    "all": (Preprocessing(resize=18, pad=2, flip=True), 18),
}
all_settings = pytest.mark.parametrize("name", list(SETTINGS))


def noise(count: int, side: int, channels: int = 3) -> np.ndarray:
    """Images of noise, in which no two windows are equal."""
    return np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def levels(x: torch.Tensor) -> np.ndarray:
    """The 8-bit levels of images in [-1, 1], which must be exact."""
    exact = (x.double() + 1) / 2 * 255
    assert (exact - exact.round()).abs().max() < 1e-3
    return exact.round().numpy().astype(np.uint8)


def cut(name: str, images: np.ndarray, seed: int, first: int, count: int) -> torch.Tensor:
    """The training images at positions first…first+count−1."""
    return preprocessing.training_images(images, SETTINGS[name][0], SIZE, seed, torch.arange(first, first + count), CPU)


def oracle(settings: Preprocessing, images: np.ndarray, seed: int, position: int) -> np.ndarray:
    """One training image by plain slicing."""
    epoch, place = divmod(position, len(images))
    image = images[int(rng.permutation(seed, "training order", epoch, len(images))[place])]
    border = settings.pad
    image = np.pad(image, ((0, 0), (border, border), (border, border)))
    here = torch.tensor([position])
    top, left = rng.integers(seed, "training crop", here, 0, image.shape[-1] - SIZE, draws=2)[0].tolist()
    window = image[:, top : top + SIZE, left : left + SIZE]
    if settings.flip and rng.uniform(seed, "training flip", here).item() < 0.5:
        window = window[:, :, ::-1]
    return window


@all_settings
def test_training_image_is_the_slice_of_the_padded_or_enlarged_image_bit_for_bit(name: str) -> None:
    settings, side = SETTINGS[name]
    images = noise(7, side)
    got = levels(cut(name, images, seed=5, first=3, count=40))
    for k in range(40):
        np.testing.assert_array_equal(got[k], oracle(settings, images, 5, 3 + k), err_msg=str(k))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_of_an_image_stay_together_and_in_order(channels: int) -> None:
    images = noise(4, 19, channels)
    got = levels(cut("resize and flip", images, 5, 0, 12))
    for k in range(12):
        np.testing.assert_array_equal(got[k], oracle(SETTINGS["resize and flip"][0], images, 5, k))


@pytest.mark.parametrize(("name", "room"), [("pad", 6), ("resize", 3), ("all", 6)])
def test_corners_are_uniform_by_a_chi_square_test(name: str, room: int) -> None:
    """All (room + 1)² corners occur equally often; each pixel of the chart holds its own place."""
    side = SETTINGS[name][1]
    border = SETTINGS[name][0].pad
    y, x = np.mgrid[0:side, 0:side].astype(np.uint8)
    chart = np.stack([y + 1, x + 1, np.full_like(y, 255)])[None]  # the border is 0
    count = 80 * (room + 1) ** 2
    got = levels(cut(name, chart, seed=11, first=0, count=count)).astype(int)
    middle = got[:, :2, SIZE // 2, SIZE // 2] - 1 + border
    rows, columns = middle[:, 0] - SIZE // 2, middle[:, 1] - SIZE // 2
    if SETTINGS[name][0].flip:  # in a mirrored image the columns decrease
        mirrored = got[:, 1, SIZE // 2, SIZE // 2 - 1] > got[:, 1, SIZE // 2, SIZE // 2]
        columns = np.where(mirrored, middle[:, 1] - (SIZE - 1 - SIZE // 2), columns)
    corners = Counter(zip(rows.tolist(), columns.tolist(), strict=True))
    cells = (room + 1) ** 2
    assert corners.keys() == {(r, c) for r in range(room + 1) for c in range(room + 1)}
    chi2 = sum((n - count / cells) ** 2 / (count / cells) for n in corners.values())
    assert chi2 < cells - 1 + 5 * np.sqrt(2 * (cells - 1))


def test_half_of_the_images_are_mirrored_independently_of_the_corner() -> None:
    row = np.arange(19, dtype=np.uint8)
    chart = np.broadcast_to(row, (1, 3, 19, 19)).copy()
    chart[:, 1] = row[:, None]
    got = levels(cut("resize and flip", chart, seed=2, first=0, count=8000)).astype(int)
    mirrored = got[:, 0, 0, 0] > got[:, 0, 0, -1]
    assert mirrored.mean() == pytest.approx(0.5, abs=0.025)
    upper = got[:, 1, 0, 0] < 2
    assert mirrored[upper].mean() == pytest.approx(mirrored[~upper].mean(), abs=0.05)
    assert not (cut("resize", chart, 2, 0, 100)[:, 0, 0, 0] > cut("resize", chart, 2, 0, 100)[:, 0, 0, -1]).any()


@all_settings
def test_training_image_depends_on_seed_and_position_alone(name: str) -> None:
    images = noise(9, SETTINGS[name][1])
    whole = cut(name, images, seed=5, first=0, count=36)
    for size in (1, 4, 5):
        parts = [cut(name, images, 5, first, min(size, 36 - first)) for first in range(0, 36, size)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(cut(name, images, 5, 20, 16), whole[20:])
    assert not torch.equal(cut(name, images, 6, 0, 36), whole)
    assert not torch.equal(whole[:9], whole[9:18])
    back = torch.arange(35, -1, -1)
    assert torch.equal(preprocessing.training_images(images, SETTINGS[name][0], SIZE, 5, back, CPU).flip(0), whole)


@all_settings
def test_every_epoch_shows_each_image_once_in_another_order(name: str) -> None:
    side = SETTINGS[name][1]
    images = np.repeat(np.arange(1, 24, dtype=np.uint8), side * side).reshape(23, 1, side, side)
    position = torch.arange(3 * 23)
    settings = SETTINGS[name][0]
    seen = [preprocessing.training_images(images, settings, SIZE, 7, part, CPU) for part in position.split(5)]
    shown = levels(torch.cat(seen))[:, 0, SIZE // 2, SIZE // 2].tolist()  # the centre is never border
    orders = [shown[i : i + 23] for i in range(0, 69, 23)]
    assert [sorted(order) for order in orders] == [list(range(1, 24))] * 3
    assert len({tuple(order) for order in orders}) == 3


def test_all_256_levels_are_exact_in_training_and_testing() -> None:
    """Level v becomes v / 255 · 2 − 1 in float32, cropped or not."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    expected = torch.arange(256).reshape(1, 1, 16, 16).to(torch.float32) / 255 * 2 - 1
    one = torch.zeros(1, dtype=torch.int64)
    plain = preprocessing.training_images(images, Preprocessing(), 16, 0, one, CPU)
    assert plain.dtype == torch.float32
    assert torch.equal(plain, expected)
    assert torch.equal(preprocessing.test_images(images, 16, slice(1), CPU), expected)
    flipped = [preprocessing.training_images(images, Preprocessing(flip=True), 16, 0, one + k, CPU) for k in range(20)]
    assert {torch.equal(x, expected) for x in flipped} == {True, False}
    assert all(torch.equal(x, expected) or torch.equal(x, expected.flip(3)) for x in flipped)
    border = preprocessing.training_images(
        np.full_like(images, 255), Preprocessing(pad=8), 16, 0, torch.arange(50), CPU
    )
    assert set(border.unique().tolist()) == {-1.0, 1.0}, "the border is black"


def test_default_settings_change_no_pixel_and_draw_no_number() -> None:
    images = noise(9, SIZE)
    position = torch.arange(4, 31)
    order = preprocessing.image_indices(5, position, 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "integers", None)
        patch.setattr(rng, "uniform", None)
        got = preprocessing.training_images(images, Preprocessing(), SIZE, 5, position, CPU)
    assert torch.equal(got, from_uint8(images[order], CPU))


@pytest.mark.parametrize(("side", "size"), [(35, 32), (143, 128), (71, 64), (32, 32), (18, 16), (17, 16), (33, 16)])
def test_centre_crop_is_torchvisions_and_copies_nothing(side: int, size: int) -> None:
    images = noise(3, side)
    crop = transforms.CenterCrop(size)
    expected = np.stack([np.asarray(crop(Image.fromarray(im.transpose(1, 2, 0)))).transpose(2, 0, 1) for im in images])
    cropped = preprocessing.center_crop(images, size)
    np.testing.assert_array_equal(cropped, expected)
    assert cropped.base is not None
    np.testing.assert_array_equal(levels(preprocessing.test_images(images, size, slice(1, 3), CPU)), expected[1:])


def test_memory_mapped_images_equal_arrays(tmp_path: Path) -> None:
    images = noise(5, 19)
    np.save(tmp_path / "train.npy", images)
    mapped = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert torch.equal(cut("resize and flip", mapped, 1, 0, 10), cut("resize and flip", images, 1, 0, 10))
    assert torch.equal(
        preprocessing.test_images(mapped, 16, slice(5), CPU), preprocessing.test_images(images, 16, slice(5), CPU)
    )


def test_cropping_changes_no_severity_and_halves_of_a_batch_equal_the_whole(experiment: Experiment) -> None:
    cropped = experiment.model_copy(update={"preprocessing": Preprocessing(resize=19, flip=True)})
    images = noise(9, 19, 1)
    degradation = degradations.build(experiment.degradation, 16)
    source = loop.TrainingSet(images, cropped, degradation, 5)
    x0, xt, t = loop.training_batch(source, 6, 8, CPU)
    assert torch.equal(x0, cut("resize and flip", images, 5, 6, 8))
    parts = [loop.training_batch(source, first, 4, CPU) for first in (6, 10)]
    for whole, halves in zip((x0, xt, t), zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(halves), whole)
    uncropped = loop.TrainingSet(images[..., :16, :16], experiment, degradation, 5)
    plain = loop.training_batch(uncropped, 6, 8, CPU)
    assert torch.equal(plain[2], t)
    assert not torch.equal(plain[0], x0)
