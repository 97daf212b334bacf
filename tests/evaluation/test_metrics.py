"""Metrics: golden values of the released evaluation, independent implementations as oracles, and laws."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import GOLDEN
from cleanfid.fid import frechet_distance as cleanfid_distance
from cleanfid.fid import kernel_distance as cleanfid_kernel_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from skimage.metrics import structural_similarity
from torch import Tensor

from coldbench import degradations
from coldbench.core import images
from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics import gabor, intervals, kernel, reference, similarity
from coldbench.evaluation.metrics.frechet import BLOCK, Moments, Statistics, frechet_distance

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


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 1),
    d=st.integers(1, 6),
    single=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_moments_of_parts(sizes: list[int], d: int, single: bool, seed: int) -> None:
    """Parts of any size, none and one included, give the statistics of all rows; what was asked before stays."""
    values = features(sum(sizes), d, seed).astype(np.float32 if single else np.float64)
    moments = Moments(d)
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        moments.add(part)
    found = moments.statistics()
    assert found.n == sum(sizes)
    assert found.mean.dtype == found.covariance.dtype == np.float64
    double = values.astype(np.float64)
    np.testing.assert_allclose(found.mean, double.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(double, rowvar=False).reshape(d, d), rtol=1e-10, atol=1e-12)
    mean = found.mean.copy()
    moments.add(values + 1)
    np.testing.assert_array_equal(found.mean, mean)


def test_moments_far_from_zero() -> None:
    """A mean a million times the spread: parts, single rows and more rows than are centred at a time lose no digits."""
    n = BLOCK + 500
    near = 1e-2 * features(n, 3, 0)
    values = near + 1e4
    expected = np.cov(near, rowvar=False)
    moments = Moments(3)
    for part in [*np.split(values[:300], 300), *np.array_split(values[300:], 40)]:
        moments.add(part)
    for found in (moments.statistics(), Statistics.of(values)):
        assert found.n == n
        np.testing.assert_allclose(found.mean - 1e4, near.mean(axis=0), rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.covariance, expected, rtol=1e-8, atol=1e-12)


def test_moments_that_cannot_be() -> None:
    moments = Moments(3)
    for n, told in enumerate(("0 images", "1 image ")):
        with pytest.raises(ColdbenchError, match=f"features of {told}"):
            moments.statistics()
        moments.add(features(1, 3, n))
    for wrong in (features(5, 2, 0), features(3, 3, 0)[0]):
        with pytest.raises(ColdbenchError, match=r"shape .*, not \(n, 3\)"):
            moments.add(wrong)
    for value in (np.nan, np.inf):
        broken = features(5, 3, 0)
        broken[3, 1] = value
        with pytest.raises(ColdbenchError, match="features of image 5 are not finite"):
            moments.add(broken)
    assert moments.statistics().n == 2


def test_singular() -> None:
    """n centred rows span n − 1 dimensions at most."""
    for n in (2, 4, 5, 6):
        found = Statistics.of(features(n, 5, 0))
        assert found.singular == (np.linalg.matrix_rank(found.covariance) < 5) == (n < 6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize(("d", "n", "m"), [(5, 30, 8), (64, 66, 300), (64, 300, 66), (128, 256, 300)])
def test_frechet_agrees_with_square_roots(d: int, n: int, m: int) -> None:
    """Matrix square roots by SciPy, alone and in clean-fid, wherever the lower rank stands."""
    a, b = Statistics.of(features(n, d, 0, 3.0)), Statistics.of(features(m, d, 1))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    assert cleanfid_distance(a.mean, a.covariance, b.mean, b.covariance) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 200), (200, 20), (20, 30), (64, 65)])
def test_frechet_of_few_images(n: int, m: int) -> None:
    """Fewer images than features: the cross term is the nuclear norm of the centred features' product."""
    a, b = features(n, 64, 0, 2.0), features(m, 64, 1)
    x, y = ((v - v.mean(axis=0)) / (len(v) - 1) ** 0.5 for v in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.square(x).sum() + np.square(y).sum() - 2 * cross
    assert frechet_distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e3])
def test_frechet_has_no_scale_of_its_own(scale: float) -> None:
    """It is that of the features, squared, for singular covariances too: nothing small is added or cut off."""
    a, b = features(20, 8, 0), features(30, 8, 1)
    b[:, 3:] = 0
    near, far = (frechet_distance(Statistics.of(s * a), Statistics.of(s * b)) for s in (1.0, scale))
    assert far == pytest.approx(scale**2 * near, rel=1e-6)


def test_frechet_that_cannot_be() -> None:
    good = Statistics.of(features(9, 3, 0))
    bad = [Statistics(np.full(3, value), good.covariance, 9) for value in (np.nan, np.inf)] + [
        Statistics(good.mean, np.full((3, 3), np.nan), 9)
    ]
    for pair in [(good, one) for one in bad] + [(one, good) for one in bad]:
        with pytest.raises(ColdbenchError, match="not finite"):
            frechet_distance(*pair)
    with pytest.raises(ColdbenchError, match="3 and 4 features"):
        frechet_distance(good, Statistics.of(features(9, 4, 0)))


def test_order_of_rows() -> None:
    """Neither distance of whole sets depends on the order of their rows."""
    a, b = features(40, 6, 0), features(50, 6, 1)
    shuffled = np.random.default_rng(0).permutation(a)
    there = Statistics.of(b)
    assert frechet_distance(Statistics.of(shuffled), there) == pytest.approx(
        frechet_distance(Statistics.of(a), there), rel=1e-9
    )
    whole = kernel.kernel_distance(a, b[:40], 0).value
    assert kernel.kernel_distance(shuffled, b[:40], 1).value == pytest.approx(whole, rel=1e-9)


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator pair by pair, as Bińkowski et al. (2018) write it."""

    def kernel_of(one: np.ndarray, other: np.ndarray) -> float:
        return (float(one @ other) / len(one) + 1) ** 3

    within = [
        np.mean([kernel_of(one, other) for one, other in itertools.permutations(list(rows), 2)]) for rows in (x, y)
    ]
    return sum(within) - 2 * np.mean([kernel_of(one, other) for one in x for other in y])


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (9, 14, 5), (30, 30, 8)])
def test_kernel_distance_pair_by_pair(n: int, m: int, d: int) -> None:
    a, b = features(n, d, 0), features(m, d, 1)
    assert kernel.squared_discrepancy(a, b) == pytest.approx(squared_discrepancy(a, b), rel=1e-9)
    if n == m:
        found = kernel.kernel_distance(a, b, 5)
        assert found.value == pytest.approx(squared_discrepancy(a, b), rel=1e-9)
        assert found.value == pytest.approx(cleanfid_kernel_distance(a, b, num_subsets=1), rel=1e-9)
        assert math.isnan(found.low + found.high), "one subset has no spread"


def test_kernel_distance_agrees_with_clean_fid() -> None:
    """Random subsets of sets of different sizes, as of theirs: the means over many of each agree."""
    a, b = features(300, 6, 0).astype(np.float32), features(200, 6, 1)
    np.random.seed(0)
    expected = cleanfid_kernel_distance(a, b, num_subsets=1500, max_subset_size=40)
    found = kernel.kernel_distance(a, b, 0, subsets=1500, size=40)
    deviation = (found.high - found.low) / 3.92
    assert found.value == pytest.approx(expected, abs=5 * deviation * (2 / 1500) ** 0.5)
    assert 0.05 < deviation / found.value < 2
    assert found.n == 300
    assert not found.singular
    assert found == kernel.kernel_distance(a, b, 0, subsets=1500, size=40)
    assert found.value != kernel.kernel_distance(a, b, 1, subsets=1500, size=40).value


def test_subsets_of_the_kernel_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds rows of its own set at most once, as many as told or as there are; the spread is of percentiles."""
    seen = []

    def record(x: np.ndarray, y: np.ndarray) -> float:
        seen.append((x, y))
        return float(len(seen) - 1)

    monkeypatch.setattr(kernel, "squared_discrepancy", record)
    a, b = np.arange(1200.0)[:, None], -1 - np.arange(1100.0)[:, None]
    assert kernel.kernel_distance(a, b, 0, subsets=101) == intervals.Estimate(50.0, 2.5, 97.5, 1200)
    for x, y in seen:
        assert x.shape == y.shape == (1000, 1)
        assert len(np.unique(x)) == len(np.unique(y)) == 1000
        assert x.min() >= 0 > y.max()
    assert not np.array_equal(np.sort(seen[0][0], axis=0), np.sort(seen[1][0], axis=0))
    assert len(np.unique(np.concatenate([x for x, _ in seen]))) == 1200
    for one, other in [(a, b[:7]), (a[:7], b)]:
        seen.clear()
        kernel.kernel_distance(one, other, 0)
        assert len(seen) == 100
        assert seen[0][0].shape == seen[0][1].shape == (7, 1)


def test_kernel_distance_is_unbiased() -> None:
    """Of two samples of one distribution it is zero on average, so sometimes below; then it grows with a shift."""
    values = [kernel.kernel_distance(*(np.random.default_rng((s, k)).normal(size=(40, 4)) for k in (0, 1)), 0).value
              for s in range(300)]  # fmt: skip
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values) / 300**0.5
    rows = features(600, 8, 0)
    distances = [kernel.kernel_distance(rows, rows + shift, 0, size=100).value for shift in (0, 0.2, 0.4, 0.8)]
    assert abs(distances[0]) < 0.1 * distances[1]
    assert all(a < b for a, b in itertools.pairwise(distances))


def test_kernel_distance_that_cannot_be() -> None:
    a, b = features(9, 3, 0), features(9, 3, 1)
    broken = np.where(np.arange(9)[:, None] == 4, np.nan, b)
    for pair in [(a[:1], b), (a, b[:1]), (a[:0], b)]:
        with pytest.raises(ColdbenchError, match="2 images of each set"):
            kernel.kernel_distance(*pair, 0)
    with pytest.raises(ColdbenchError, match="1 subset, not 9 and 0"):
        kernel.kernel_distance(a, b, 0, subsets=0)
    with pytest.raises(ColdbenchError, match=r"\(9, 3\) and \(9, 2\)"):
        kernel.kernel_distance(a, b[:, :2], 0)
    for pair in [(a, broken), (broken, a)]:
        with pytest.raises(ColdbenchError, match="not finite"):
            kernel.kernel_distance(*pair, 0)


def pairs_of(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated squared errors of n images: means 2 and 1.25, both with half of it from what the images share."""
    shared, one, other = np.random.default_rng(seed).normal(size=(3, n))
    return (shared + one) ** 2, (shared + one / 4 + other / 4 * 3**0.5) ** 2


@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (lambda a, b, seed: intervals.mean(a, seed, 300), 2.0),
        (lambda a, b, seed: intervals.difference(a, b, "mean", seed, 300), 0.75),
        (lambda a, b, seed: intervals.difference(a, b, "root_mean", seed, 300), 2**0.5 - 1.25**0.5),
    ],
    ids=["mean", "difference", "difference of roots"],
)
def test_coverage(interval: Callable[[np.ndarray, np.ndarray, int], intervals.Estimate], truth: float) -> None:
    """Of 400 intervals from new images about 95 % hold the true value; misses lie on both sides."""
    found = [interval(*pairs_of(150, seed), seed) for seed in range(400)]
    missed = [sum(e.high < truth for e in found), sum(e.low > truth for e in found)]
    assert 0.91 <= 1 - sum(missed) / 400 <= 0.98
    assert min(missed) > 0
    assert np.mean([e.value for e in found]) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize(
    ("statistic", "pooled"), [("mean", similarity.pooled_ssim), ("root_mean", similarity.pooled_rmse)]
)
def test_difference(statistic: str, pooled: Callable[[np.ndarray, int], intervals.Estimate]) -> None:
    """That of the pooled values; against zeros it is the pooled value, interval included; paired images tell more."""
    a, b = pairs_of(500, 0)
    one, other, found = pooled(a, 3), pooled(b, 3), intervals.difference(a, b, statistic, 3)
    assert found.value == pytest.approx(one.value - other.value)
    assert (found.n, found.singular) == (500, False)
    assert found.low < found.value < found.high
    unpaired = math.hypot(one.high - one.low, other.high - other.low)
    assert found.high - found.low < 0.9 * unpaired
    back = intervals.difference(b, a, statistic, 3)
    assert [back.value, back.low, back.high] == pytest.approx([-found.value, -found.high, -found.low])
    alone = intervals.difference(a, np.zeros(500), statistic, 3)
    assert [alone.value, alone.low, alone.high] == pytest.approx([one.value, one.low, one.high], rel=1e-4)
    assert intervals.difference(a, a, statistic, 3) == intervals.Estimate(0, 0, 0, 500)


def test_difference_that_cannot_be() -> None:
    a = np.ones(5)
    with pytest.raises(ColdbenchError, match="of 5 and of 4 images"):
        intervals.difference(a, a[:4], "mean", 0)
    with pytest.raises(ColdbenchError, match=r"statistic 'median'.*mean, root_mean"):
        intervals.difference(a, a, "median", 0)
    for none in (lambda: intervals.difference(a[:0], a[:0], "mean", 0), lambda: intervals.mean(a[:0], 0)):
        with pytest.raises(ColdbenchError, match="no images"):
            none()


def paired_features(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 3) of the same images by two methods, one further from a standard normal than the other."""
    generator = np.random.default_rng(seed)
    shared, one, other = generator.normal(size=(3, n, 3))
    return shared + 0.3 * one + 0.5, 1.1 * shared + 0.3 * other + 0.7


def test_frechet_intervals() -> None:
    """RunMetadata ± 1.96 of the standard deviation that the distances, and their differences, of other images show."""
    target = Statistics(np.zeros(3), np.eye(3), 10_000)
    samples = [paired_features(200, seed) for seed in range(150)]
    a, b = samples[0]
    distances = np.array([[frechet_distance(Statistics.of(rows), target) for rows in pair] for pair in samples])
    lone = intervals.frechet(a, target, 7, 150)
    both = intervals.frechet_difference(a, b, target, 7, 150)
    for found, seen in [(lone, distances[:, 0]), (both, distances[:, 0] - distances[:, 1])]:
        assert found.value == pytest.approx(seen[0])
        assert (found.high - found.low) / 3.92 == pytest.approx(seen.std(), rel=0.3)
        assert found.value == pytest.approx((found.low + found.high) / 2)
        assert (found.n, found.singular) == (200, False)
    assert both.high - both.low < lone.high - lone.low
    assert lone == intervals.frechet(a, target, 7, 150)
    assert lone.low != intervals.frechet(a, target, 8, 150).low
    assert both == intervals.frechet_difference(a, b, target, 7, 150)


def test_frechet_intervals_of_restored_images() -> None:
    """An image is drawn with its original: what both share varies from set to set and is no part of the distance."""

    def images(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shared, one, other = np.random.default_rng(seed).normal(size=(3, 200, 3)) * [[[1.0]], [[0.3]], [[0.2]]]
        return shared, 0.9 * shared + one, 0.8 * shared + other + 0.1

    def distance(x: np.ndarray, originals: np.ndarray) -> float:
        return frechet_distance(Statistics.of(x), Statistics.of(originals))

    samples = [images(seed) for seed in range(150)]
    seen = np.array([[distance(a, originals), distance(b, originals)] for originals, a, b in samples])
    originals, a, b = samples[0]
    target = Statistics.of(originals)
    lone = intervals.frechet(a, target, 7, 150, originals)
    both = intervals.frechet_difference(a, b, target, 7, 150, originals)
    for found, values in [(lone, seen[:, 0]), (both, seen[:, 0] - seen[:, 1])]:
        assert found.value == pytest.approx(values[0])
        assert (found.high - found.low) / 3.92 == pytest.approx(values.std(), rel=0.3)
    fixed = intervals.frechet(a, target, 7, 150)
    assert fixed.high - fixed.low > 2 * (lone.high - lone.low)
    perfect = intervals.frechet(originals, target, 7, 20, originals)
    assert (perfect.low, perfect.value, perfect.high) == pytest.approx((0, 0, 0), abs=1e-12)
    with pytest.raises(ColdbenchError, match="of 200 and of 199 images"):
        intervals.frechet(a, target, 0, 0, originals[1:])


def test_a_frechet_interval_is_of_standard_deviations() -> None:
    """With two draws it can be told by hand: 1.96 of the sample deviation, which divides by one."""
    a, b = paired_features(30, 0)
    target = Statistics(np.zeros(3), np.eye(3), 100)
    generator = np.random.default_rng(4)
    drawn = [generator.integers(0, 30, 30) for _ in range(2)]
    one, other = ([frechet_distance(Statistics.of(x[rows]), target) for rows in drawn] for x in (a, b))
    for found, values in [
        (intervals.frechet(a, target, 4, 2), one),
        (intervals.frechet_difference(a, b, target, 4, 2), np.subtract(one, other)),
    ]:
        assert found.high - found.value == pytest.approx(1.96 * abs(values[0] - values[1]) / 2**0.5)


@pytest.mark.parametrize(("n", "m", "singular"), [(4, 5, True), (5, 4, True), (3, 3, True), (5, 5, False)])
def test_frechet_intervals_of_few(n: int, m: int, singular: bool) -> None:
    """Without draws there are no bounds; whether a covariance lacks rank is told of either side."""
    a, b, target = features(n, 4, 0), features(n, 4, 1), Statistics.of(features(m, 4, 2))
    lone, both = intervals.frechet(a, target, 0, 0), intervals.frechet_difference(a, b, target, 0, 0)
    assert lone.singular == both.singular == singular
    assert both.value == pytest.approx(lone.value - intervals.frechet(b, target, 0, 0).value)
    assert all(math.isnan(bound) for found in (lone, both) for bound in (found.low, found.high))
    with pytest.raises(ColdbenchError, match="1 resample"):
        intervals.frechet(a, target, 0, 1)
    with pytest.raises(ColdbenchError, match=f"of {n} and of {n - 1} images"):
        intervals.frechet_difference(a, b[1:], target, 0, 0)


class Set:
    """A reference set of four batches that counts how often its images are asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.metadata: dict[str, object] = {"features": "toy", "data": "abc", "split": "train", "n": 12}
        self.rows, self.asked = features(12, 3, seed), 0

    def batches(self) -> Iterator[Tensor]:
        self.asked += 1
        return iter(torch.from_numpy(self.rows).split(3))

    def reference(self, folder: Path, **about: object) -> reference.Reference:
        return reference.reference(folder, {**self.metadata, **about}, self.batches, Tensor.numpy)


def same(one: reference.Reference, other: reference.Reference) -> bool:
    """Whether two references hold the same bits."""
    parts = [(r.statistics.mean, r.statistics.covariance, r.features) for r in (one, other)]
    equal = all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*parts, strict=True))
    return equal and one.statistics.n == other.statistics.n


def test_reference_features_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows are kept, the statistics are of all; the second time it is the file that answers, alike."""
    monkeypatch.setattr(reference, "STORED_ROWS", 4)
    toy = Set()
    made = toy.reference(tmp_path / "cache")
    expected = Statistics.of(toy.rows)
    np.testing.assert_allclose(made.statistics.covariance, expected.covariance, rtol=1e-12)
    np.testing.assert_allclose(made.statistics.mean, expected.mean, rtol=1e-12)
    assert (made.statistics.n, made.features.dtype) == (12, np.float32)
    np.testing.assert_array_equal(made.features, toy.rows[:4].astype(np.float32))
    again = toy.reference(tmp_path / "cache")
    assert toy.asked == 1
    assert same(made, again)
    [path] = (tmp_path / "cache").iterdir()
    assert path.name.startswith("toy-")
    with np.load(path, allow_pickle=False) as stored:
        assert json.loads(str(stored["identity"])) == toy.metadata


def test_reference_sets_share_no_file(tmp_path: Path) -> None:
    """Whatever differs in what a set is; the order in which it is told does not count."""
    abouts = [{}, {"features": "other"}, {"data": "abd"}, {"split": "test"}, {"n": 13}, {"n": "12"}, {"size": 16}]
    for count, about in enumerate(abouts, start=1):
        toy = Set(seed=count)
        toy.reference(tmp_path, **about)
        assert (toy.asked, len(list(tmp_path.iterdir()))) == (1, count)
    toy = Set(seed=1)
    toy.metadata = dict(reversed(toy.metadata.items()))
    toy.reference(tmp_path)
    assert toy.asked == 0


def test_damaged_reference_features_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut short anywhere, or with any bit flipped: made again with a warning, or (unused bytes) just the same."""
    toy = Set()
    expected = toy.reference(tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    cut = [whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    flipped = [whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :] for i in range(0, len(whole), 9)]
    harmless = 0
    for damaged in cut + flipped:
        path.write_bytes(damaged)
        toy.asked = 0
        caplog.clear()
        with caplog.at_level("WARNING", logger="coldbench"):
            assert same(toy.reference(tmp_path), expected)
        assert len(caplog.records) == toy.asked
        if toy.asked:
            assert "damaged" in caplog.text
            assert same(toy.reference(tmp_path), expected)
            assert toy.asked == 1
        else:
            assert damaged in flipped
            harmless += 1
    assert harmless < len(flipped) / 4


def test_a_damaged_array_header_is_seen(tmp_path: Path) -> None:
    """NumPy alone would read what the header says, never meet the end of the array and so never check its sum."""
    toy = Set()
    toy.rows = features(2000, 3, 0)
    expected = toy.reference(tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"(2000, 3)", b"(1000, 3)"))
    with np.load(path) as stored:
        assert stored["features"].shape == (1000, 3)
    assert same(toy.reference(tmp_path), expected)
    assert toy.asked == 2


def test_foreign_reference_features_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A whole file of another set under this one's name, or one that lacks an entry."""
    Set(seed=1).reference(tmp_path, split="test")
    [foreign] = tmp_path.iterdir()
    toy = Set()
    expected = toy.reference(tmp_path)
    [path] = set(tmp_path.iterdir()) - {foreign}
    path.write_bytes(foreign.read_bytes())
    with caplog.at_level("WARNING", logger="coldbench"):
        assert same(toy.reference(tmp_path), expected)
    assert toy.asked == 2
    assert f"{path} are of another set" in caplog.text
    np.savez(path, mean=expected.statistics.mean)
    assert same(toy.reference(tmp_path), expected)
    assert toy.asked == 3


def test_reference_that_cannot_be(tmp_path: Path) -> None:
    toy = Set()
    for rows, told in [(toy.rows[:0], "0 images"), (toy.rows[:1], "1 image "), (np.full((3, 3), np.nan), "image 0")]:
        toy.rows = rows
        with pytest.raises(ColdbenchError, match=told):
            toy.reference(tmp_path)
    with pytest.raises(ColdbenchError, match="no images"):
        reference.reference(tmp_path, toy.metadata, lambda: [], Tensor.numpy)
    assert not list(tmp_path.iterdir())
