"""Snow against the published corruption of ImageNet-C (Hendrycks and Dietterich, 2019; package imagecorruptions)."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from coldbench import degradations
from coldbench.core import rng
from coldbench.degradations import snow
from coldbench.degradations.snow import Level

SEED = 4
STD = 4.0  # of the motion blur, pixels
PUBLISHED = Level(0.55, 0.3, 2.5, 25, (0.85, 0.85), (STD, STD), (0.55, 0.55))  # its severity 5
SIZES = [32, 40]  # for other sizes the published code crops after the blur, and this package before


@pytest.fixture
def published() -> Any:
    """The module of corruptions in imagecorruptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pkg_resources
        return pytest.importorskip("imagecorruptions.corruptions")


def build(size: int, **parameters: Any) -> Any:
    """Snow with T = 1."""
    return degradations.build({"name": "snow", "T": 1, "level": 3, **parameters}, size)


def seed_layer(group: int, size: int) -> Any:
    """The standard normal numbers behind the flakes of a group of images, (size, size)."""
    return rng.normal(SEED, "snow seed layer", torch.tensor([group]), size**2).reshape(size, size).numpy()


def motion_blur(layer: Any, radius: int, sigma: float, angle: float) -> Any:
    """Two-sided, zero outside the image, along a row (angle 0) or a column (angle -90)."""
    weights = np.exp(-(np.arange(-12, 13) ** 2) / (2 * STD**2))
    return ndimage.convolve1d(layer, weights / weights.sum(), axis=1 if angle == 0 else 0, mode="constant")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_snow_agrees_with_the_published_corruption(
    published: Any, monkeypatch: pytest.MonkeyPatch, size: int, channels: int
) -> None:
    """In both directions, from the same seed layer, to the 8 bits of the published layer."""
    monkeypatch.setattr(snow.Snow, "constants", PUBLISHED)
    monkeypatch.setattr(published, "_motion_blur", motion_blur)
    degradation = build(size, fix_brightness=False, shared=1)
    indices = torch.arange(8)
    pixels = np.random.default_rng(1).integers(0, 256, (8, size, size, channels), dtype=np.uint8)
    x0 = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255 * 2 - 1
    drawn = degradation.draw(indices, SEED)
    got = degradation(x0, torch.ones(8, dtype=torch.int64), drawn)
    assert 0 < drawn["vertical"].sum() < 8, "both directions occur"
    for i in indices.tolist():

        def normal(size: tuple[int, int], loc: float, scale: float, i: int = i) -> Any:
            return loc + scale * seed_layer(i, size[0])

        monkeypatch.setattr(np.random, "normal", normal)
        monkeypatch.setattr(np.random, "uniform", lambda low, high, i=i: -90.0 if drawn["vertical"][i] else 0.0)
        image = pixels[i] if channels == 3 else pixels[i, :, :, 0]
        expected = torch.from_numpy(np.atleast_3d(published.snow(image, severity=5))).permute(2, 0, 1) / 255
        difference = ((got[i] + 1) / 2 - expected).abs()
        assert difference.max() < 1 / 255 + 1e-6
        assert difference.mean() < 0.3 / 255
        assert ((got[i] + 1) / 2 - (x0[i] + 1) / 2).abs().mean() > 0.1, "nothing happened"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [1, 2])
def test_flakes_agree_with_the_published_enlargement(published: Any, size: int, level: int) -> None:
    layer = seed_layer(0, size)
    degradation = build(size, level=level)
    expected = published.clipped_zoom(layer[..., None], degradation.constants.zoom)[..., 0]
    trim = (len(expected) - size) // 2  # the published function leaves the trimming to its caller
    got = degradation.enlarge(torch.from_numpy(layer)[None])[0].numpy()
    np.testing.assert_allclose(got, expected[trim : trim + size, trim : trim + size], rtol=0, atol=1e-12)


@pytest.mark.parametrize("vertical", [True, False])
def test_the_published_motion_blur_has_the_same_direction_and_weights(published: Any, vertical: bool) -> None:
    """The published blur is one-sided and lies on the same line."""
    degradation, flake = build(32, T=3), np.zeros((32, 32))
    flake[15, 15] = 1.0
    std = (0.05 + 16) / 2  # of level 3 at severity 2 of 3
    one_sided = published._motion_blur(flake, radius=5, sigma=std, angle=-90.0 if vertical else 0.0)
    drawn = {"flakes": torch.from_numpy(flake)[None], "vertical": torch.tensor([vertical])}
    layers = one_sided, degradation.snow(torch.tensor([2]), drawn)[0].numpy()
    profiles = []
    for layer in layers:
        line = layer[:, 15] if vertical else layer[15]
        assert layer.sum() == pytest.approx(line.sum(), abs=1e-6), "the flake spreads beyond its line"
        assert np.count_nonzero(line) == 11
        profiles.append(np.sort(line)[::-1] / line.max())
    one_side, both_sides = profiles
    np.testing.assert_allclose(both_sides[1:11:2], one_side[1:6], rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(2, 70),
    level=st.integers(1, 4),
    crop=st.sampled_from(["centre", "corner"]),
    zoom=st.sampled_from(["linear", "spline"]),
)
def test_flakes_are_an_enlarged_part_of_the_seed_layer(size: int, level: int, crop: str, zoom: str) -> None:
    """At any size; the oracle enlarges both dimensions at once and trims all sides equally."""
    degradation = build(size, level=level, crop=crop, zoom=zoom, shared=5)
    layer = degradation.constants.mean + degradation.constants.std * seed_layer(2, size)
    part = math.ceil(size / degradation.constants.zoom)
    first = (size - part) // 2 if crop == "centre" else 0
    cut = layer[first : first + part, first : first + part]
    large = ndimage.zoom(cut, degradation.constants.zoom, order=1 if zoom == "linear" else 3)
    trim = (len(large) - size) // 2
    flakes = degradation.draw(torch.tensor([14]), SEED)["flakes"][0].numpy()
    np.testing.assert_allclose(flakes, large[trim : trim + size, trim : trim + size], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [1, 7, 32])
def test_consecutive_images_share_a_pattern(shared: int) -> None:
    """Groups of `shared` images have one pattern and one direction; half of the patterns are vertical."""
    drawn = build(16, shared=shared).draw(torch.arange(64), SEED)
    groups = torch.arange(64) // shared
    for value in drawn.values():
        for group in groups.unique():
            assert (value[groups == group] == value[groups == group][:1]).all()
    flakes = drawn["flakes"].flatten(1)
    same = (flakes[:, None] == flakes[None]).all(dim=2)
    assert torch.equal(same, groups[:, None] == groups[None])
    many = build(2, shared=1).draw(torch.arange(4000), SEED)["vertical"].double()
    assert abs(many.mean() - 0.5) < 0.03


def test_a_flake_at_the_threshold_stays() -> None:
    """And vanishes when it is smaller by the last bit of a float64."""
    degradation = build(16, T=3)
    for value, stays in ((1.15, True), (np.nextafter(1.15, 0), False)):
        drawn = {"flakes": torch.full((1, 16, 16), value, dtype=torch.float64), "vertical": torch.tensor([False])}
        assert bool(degradation.snow(torch.tensor([1]), drawn).sum() > 0) == stays


def test_snow_grows_with_severity() -> None:
    """And the image is brightened only without `fix_brightness`."""

    def mean(t: int, **parameters: Any) -> Tensor:
        degradation = build(32, T=9, level=4, shared=1, **parameters)
        grey, severity = torch.full((50, 3, 32, 32), -0.4), torch.full((50,), t)
        return degradation(grey, severity, degradation.draw(torch.arange(50), SEED)).mean(dim=(1, 2, 3))

    for parameters in ({}, {"fix_brightness": False}, {"crop": "corner", "zoom": "spline"}):
        means = torch.stack([mean(t, **parameters) for t in range(1, 10)])
        assert (means[1:] >= means[:-1] - 1e-3).all()
        assert (means[-1] > means[0] + 0.1).all()
    assert (mean(1, fix_brightness=False) > mean(1) + 0.02).all()
