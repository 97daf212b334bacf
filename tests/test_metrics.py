"""Metrics: golden values of the released evaluation, independent implementations as oracles, and laws."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance as cleanfid_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from coldbench import degradations, images
from coldbench.metrics import gabor, similarity
from coldbench.metrics.frechet import Statistics, frechet_distance

GOLDEN = Path(__file__).parent / "golden"
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())


def load(name: str) -> dict[str, np.ndarray]:
    """A golden file."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def pairs() -> dict[str, np.ndarray]:
    """Images in [0, 1] (some values outside), degraded ones, and their scores by the released evaluation."""
    return load("metric_ssim_rmse")


def noise(n: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Uniform noise in [0, 1] (n, channels, size, size)."""
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def features(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """n correlated Gaussian features, float64 (n, d)."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(d, d)) / d**0.5
    return scale * generator.normal(size=(n, d)) @ mixing + generator.normal(size=d)


@pytest.mark.parametrize("name", ["mnist", "cifar"])
def test_golden_similarity(pairs: dict[str, np.ndarray], name: str) -> None:
    """SSIM per image and pooled, RMSE pooled over all pixels; grey is scored as one channel, theirs had three equal."""
    ssims, mses = similarity.scores_per_image(*(torch.from_numpy(pairs[f"{name}_{k}"]) for k in "ab"))
    exact = {"rtol": 0, "atol": TOLERANCES["metric_ssim_rmse"]}
    np.testing.assert_allclose(ssims, pairs[f"{name}_ssim_per_image"], **exact)
    np.testing.assert_allclose(similarity.pooled_ssim(ssims, 0).value, pairs[f"{name}_ssim"], **exact)
    np.testing.assert_allclose(similarity.pooled_rmse(mses, 0).value, pairs[f"{name}_rmse"], **exact)


def test_similarity_agrees_with_scikit_image(pairs: dict[str, np.ndarray]) -> None:
    """Their SSIM map is padded; ours is its part that no border touches: radius 5 of the 11 × 11 window."""
    ssims, mses = similarity.scores_per_image(torch.from_numpy(pairs["cifar_a"]), torch.from_numpy(pairs["cifar_b"]))
    for a, b, ssim, mse in zip(pairs["cifar_a"], pairs["cifar_b"], ssims, mses, strict=True):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        _, map_ = structural_similarity(*np.float64([a, b]), data_range=1, channel_axis=0, **options)
        assert ssim == pytest.approx(map_[:, 5:-5, 5:-5].mean(), abs=2e-5)
        assert mse == pytest.approx(np.square(a.astype(float) - b).mean(), rel=1e-9)


def test_scores_come_one_per_image() -> None:
    """The internal batches neither lose, repeat nor reorder an image, and no score depends on its neighbours."""
    a, b = noise(1003, 1, 12, seed=1), noise(1003, 1, 12, seed=2)
    ssims, mses = similarity.scores_per_image(a, b)
    assert ssims.shape == mses.shape == (1003,)
    assert ssims.dtype == mses.dtype == np.float64
    for i in (0, 499, 500, 999, 1000, 1002):
        alone = similarity.scores_per_image(a[[i]], b[[i]])
        np.testing.assert_allclose([ssims[i], mses[i]], np.concatenate(alone), rtol=0, atol=1e-6)
    ssims, mses = similarity.scores_per_image(a[:3], a[:3])
    np.testing.assert_allclose(ssims, 1, atol=1e-6)
    assert not mses.any()


def test_ranges_of_an_image() -> None:
    """Disk to network to metric and back; nothing is clamped."""
    every = np.arange(256, dtype=np.uint8)
    x = images.from_uint8(every, torch.device("cpu"))
    assert (x.dtype, x.min().item(), x.max().item()) == (torch.float32, -1, 1)
    torch.testing.assert_close(images.to_unit_interval(x) * 255, torch.arange(256.0), atol=1e-4, rtol=0)
    assert images.to_unit_interval(torch.tensor([1.5, -1.5])).tolist() == [1.25, -0.25]


@pytest.mark.parametrize("pooled", [similarity.pooled_ssim, similarity.pooled_rmse, similarity.mean_rmse])
def test_interval(pooled: type) -> None:
    """It holds the value, is the same again, and for many images is what the normal approximation gives: ∝ 1/√n."""
    widths = []
    for n in (100, 1600):
        values = np.random.default_rng(n).uniform(0.5, 1.5, size=n)
        estimate = pooled(values, 7)
        assert estimate == pooled(values, 7)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == n
        widths.append(estimate.high - estimate.low)
    assert 3 < widths[0] / widths[1] < 5.3
    seen = np.sqrt(values) if pooled is similarity.mean_rmse else values
    slope = 0.5 / estimate.value if pooled is similarity.pooled_rmse else 1.0  # of the square root
    assert widths[1] == pytest.approx(2 * 1.96 * seen.std() / 40 * slope, rel=0.1)


def test_pooled_and_mean_rmse() -> None:
    """Root of the mean against mean of the roots: they differ as soon as images do."""
    mses = np.array([0.01, 0.04, 0.09])
    assert similarity.pooled_rmse(mses, 0).value == pytest.approx((0.14 / 3) ** 0.5)
    assert similarity.mean_rmse(mses, 0).value == pytest.approx(0.2)
    lone = similarity.pooled_rmse(mses[:1], 0)
    assert lone.low == lone.value == lone.high == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "rel", "tolerance"), [("full_rank", 1e-6, 0), ("rank_deficient", 0, 1e-3)])
def test_golden_frechet(name: str, rel: float, tolerance: float) -> None:
    golden = load("metric_frechet")
    a, b = (Statistics.of(golden[f"{name}_features_{k}"]) for k in "ab")
    assert frechet_distance(a, b) == pytest.approx(float(golden[f"{name}_fid"]), rel=rel, abs=tolerance)
    assert frechet_distance(a, a) == pytest.approx(float(golden["same_fid"]), abs=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@settings(deadline=None, max_examples=25)
@given(d=st.integers(2, 24), surplus=st.integers(5, 60), scale=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_frechet_agrees_with_clean_fid(d: int, surplus: int, scale: float, seed: int) -> None:
    a, b = Statistics.of(features(d + surplus, d, seed)), Statistics.of(features(2 * d + surplus, d, seed + 1, scale))
    expected = cleanfid_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 30),
    m=st.integers(2, 30),
    d=st.integers(1, 40),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_frechet_of_singular_covariances(n: int, m: int, d: int, scale: float, seed: int) -> None:
    """Fewer images than features, constant and doubled features: a number, not negative, the same both ways round."""
    a, b = features(n, d, seed, scale), features(m, d, seed + 1)
    a[:, 0] = 0
    b[:, -1] = b[:, 0]
    one, two = Statistics.of(a), Statistics.of(b)
    distance = frechet_distance(one, two)
    assert isinstance(distance, float)
    assert np.isfinite(distance)
    assert distance >= max(0, np.square(one.mean - two.mean).sum() * (1 - 1e-9) - 1e-6 * max(1, scale**2))
    assert frechet_distance(two, one) == pytest.approx(distance, rel=1e-5, abs=1e-5 * max(1, scale))
    assert 0 <= frechet_distance(one, one) <= 1e-6 * max(1, scale**2)


def test_frechet_in_closed_form() -> None:
    """Two Gaussians with commuting covariances: |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²."""
    a = Statistics(np.zeros(3), np.diag([1.0, 4.0, 0.0]), 10)
    b = Statistics(np.array([1.0, 2.0, 0.0]), np.diag([9.0, 1.0, 0.25]), 10)
    assert frechet_distance(a, b) == pytest.approx(5 + 4 + 1 + 0.25)


def test_statistics() -> None:
    values = features(20, 4, 0)
    found = Statistics.of(values.astype(np.float32))
    assert found.n == 20
    assert found.mean.dtype == found.covariance.dtype == np.float64
    centred = values - values.mean(axis=0)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / 19, rtol=1e-5, atol=1e-6)
    assert Statistics.of(values[:, :1]).covariance.shape == (1, 1)


COLOURS = slice(-gabor.CHANNELS * gabor.GRID**2, None)
"""Where the colour features lie, after the energies."""


@pytest.mark.parametrize("size", [16, 32, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_gabor_features(channels: int, size: int) -> None:
    """One finite row per image, the same alone and in a batch; grey is colour with three equal channels."""
    images = noise(5, channels, size)
    found = gabor.features(images)
    assert found.shape == (5, gabor.DIMENSIONS)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    alone = torch.cat([gabor.features(image[None]) for image in images])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
    if channels == 1:
        torch.testing.assert_close(found, gabor.features(images.expand(-1, 3, -1, -1)), rtol=0, atol=1e-6)


def test_gabor_separates_colour_from_structure() -> None:
    """A shift of brightness moves the colour features by as much and no other; contrast scales the energies."""
    images = noise(4, 3, 32)
    found, shifted, doubled = (gabor.features(x) for x in (images, images + 0.25, 2 * images))
    energy = slice(0, COLOURS.start)
    torch.testing.assert_close(shifted[:, COLOURS], found[:, COLOURS] + 0.25, rtol=0, atol=1e-5)
    torch.testing.assert_close(shifted[:, energy], found[:, energy], rtol=0, atol=1e-4)
    torch.testing.assert_close(doubled[:, energy], 2 * found[:, energy], rtol=1e-4, atol=1e-5)
    assert found[:, energy].min() > 1e-3


@pytest.mark.parametrize("k", range(gabor.ORIENTATIONS))
@pytest.mark.parametrize("band", range(len(gabor.WAVELENGTHS)))
def test_gabor_finds_gratings(band: int, k: int) -> None:
    """A grating excites the filters of its own wavelength and orientation most, and whatever its phase as it should:
    amplitude ½ through a Gaussian of σ = λ/2 and a filter of unit energy gives ½ σ √(2π), borders aside.
    """
    row, column = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    angle, wavelength = math.pi * k / gabor.ORIENTATIONS, gabor.WAVELENGTHS[band]
    phase = 2 * math.pi / wavelength * (column * math.cos(angle) + row * math.sin(angle))
    gratings = torch.stack([torch.cos(phase), torch.sin(phase)])[:, None] / 2 + 0.5
    energies = gabor.features(gratings)[:, : COLOURS.start].reshape(2, -1, gabor.GRID**2).mean(dim=2)
    assert energies.argmax(dim=1).tolist() == [band * gabor.ORIENTATIONS + k] * 2
    expected = wavelength / 4 * math.sqrt(2 * math.pi)
    assert energies.amax(dim=1).tolist() == pytest.approx([expected] * 2, rel=0.2)


@pytest.mark.parametrize("n", [40, 200], ids=["fewer images than features", "more"])
def test_gabor_distance_grows_with_the_degradation(n: int) -> None:
    """Zero for the same images; then larger with every blur, for features singular or not."""
    blur = degradations.build({"name": "blur", "T": 4, "kernel": 5, "std": 1.0}, 32)
    images = noise(n, 3, 32)
    original = Statistics.of(gabor.features(images).numpy())
    distances = [
        frechet_distance(original, Statistics.of(gabor.features(blur(images, torch.full((n,), t), {})).numpy()))
        for t in range(5)
    ]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert all(a + 0.01 < b for a, b in itertools.pairwise(distances))
