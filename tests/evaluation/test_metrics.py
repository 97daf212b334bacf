"""Metrics: golden values of the released evaluation, independent implementations as oracles, laws and refusals."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable

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
from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics import gabor, intervals, kernel, similarity
from coldbench.evaluation.metrics.frechet import BLOCK, Moments, Statistics, frechet_distance
from coldbench.evaluation.metrics.ssim import Window

TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())


def load(name: str) -> dict[str, np.ndarray]:
    """A golden file."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def pairs() -> dict[str, np.ndarray]:
    """Images in [0, 1] (some values outside), degraded images, and their scores by the released evaluation."""
    return load("metric_ssim_rmse")


def noise(n: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Uniform noise in [0, 1] (n, channels, size, size)."""
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def features(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """n correlated Gaussian features, float64 (n, d)."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(d, d)) / d**0.5
    return scale * generator.normal(size=(n, d)) @ mixing + generator.normal(size=d)


# --- SSIM and RMSE


@pytest.mark.parametrize("name", ["mnist", "cifar"])
def test_similarity_has_the_golden_values(pairs: dict[str, np.ndarray], name: str) -> None:
    """SSIM per image and pooled, RMSE pooled over all pixels. Grey has one channel here, three equal ones there."""
    ssims, mses = similarity.scores_per_image(*(torch.from_numpy(pairs[f"{name}_{k}"]) for k in "ab"))
    exact = {"rtol": 0, "atol": TOLERANCES["metric_ssim_rmse"]}
    np.testing.assert_allclose(ssims, pairs[f"{name}_ssim_per_image"], **exact)
    np.testing.assert_allclose(similarity.pooled_ssim(ssims, 0).value, pairs[f"{name}_ssim"], **exact)
    np.testing.assert_allclose(similarity.pooled_rmse(mses, 0).value, pairs[f"{name}_rmse"], **exact)


@pytest.mark.parametrize(
    ("low", "high", "data_range", "refused"),
    [(0, 1, 1.0, False), (0, 1, 2.0, False), (-1, 1, 2.0, False), (-1, 1, 1.0, True), (0, 255, 1.0, True)],
)
def test_ssim_refuses_originals_outside_its_range(low: float, high: float, data_range: float, refused: bool) -> None:
    """The other images may leave it, as iterates do."""
    original, other = (low + (high - low) * noise(2, 1, 16, seed) for seed in (0, 1))
    window = Window(data_range=data_range)
    with pytest.raises(ColdbenchError, match="originals must lie in") if refused else contextlib.nullcontext():
        assert similarity.ssim_per_image(original, 3 * other - 1, window).shape == (2,)


def test_similarity_agrees_with_scikit_image(pairs: dict[str, np.ndarray]) -> None:
    """On the part of its padded map that no border touches: 5 pixels inside, for the 11 × 11 window."""
    ssims, mses = similarity.scores_per_image(torch.from_numpy(pairs["cifar_a"]), torch.from_numpy(pairs["cifar_b"]))
    for a, b, ssim, mse in zip(pairs["cifar_a"], pairs["cifar_b"], ssims, mses, strict=True):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        _, map_ = structural_similarity(*np.float64([a, b]), data_range=1, channel_axis=0, **options)
        assert ssim == pytest.approx(map_[:, 5:-5, 5:-5].mean(), abs=2e-5)
        assert mse == pytest.approx(np.square(a.astype(float) - b).mean(), rel=1e-9)


def test_score_of_an_image_does_not_depend_on_its_batch() -> None:
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


def test_pooled_rmse_is_the_root_of_the_mean_and_mean_rmse_the_mean_of_the_roots() -> None:
    mses = np.array([0.01, 0.04, 0.09])
    assert similarity.pooled_rmse(mses, 0).value == pytest.approx((0.14 / 3) ** 0.5)
    assert similarity.mean_rmse(mses, 0).value == pytest.approx(0.2)


# --- Fréchet distance


@pytest.mark.parametrize(("name", "rel", "tolerance"), [("full_rank", 1e-6, 0), ("rank_deficient", 0, 1e-3)])
def test_frechet_distance_has_the_golden_values(name: str, rel: float, tolerance: float) -> None:
    golden = load("metric_frechet")
    a, b = (Statistics.of(golden[f"{name}_features_{k}"]) for k in "ab")
    assert frechet_distance(a, b) == pytest.approx(float(golden[f"{name}_fid"]), rel=rel, abs=tolerance)
    assert frechet_distance(a, a) == pytest.approx(float(golden["same_fid"]), abs=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize(("d", "n", "m"), [(2, 7, 9), (5, 30, 8), (64, 66, 300), (64, 300, 66), (128, 256, 300)])
def test_frechet_distance_agrees_with_clean_fid_and_scipy(d: int, n: int, m: int) -> None:
    """Whichever side has the lower rank."""
    a, b = Statistics.of(features(n, d, 0, 3.0)), Statistics.of(features(m, d, 1))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    for distance in (
        frechet_distance(a, b),
        frechet_distance(b, a),
        cleanfid_distance(a.mean, a.covariance, b.mean, b.covariance),
    ):
        assert distance == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 30),
    m=st.integers(2, 30),
    d=st.integers(1, 40),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_frechet_distance_is_symmetric_and_not_negative(n: int, m: int, d: int, scale: float, seed: int) -> None:
    """Also for fewer images than features, and for constant and doubled features."""
    a, b = features(n, d, seed, scale), features(m, d, seed + 1)
    a[:, 0] = 0
    b[:, -1] = b[:, 0]
    one, two = Statistics.of(a), Statistics.of(b)
    distance = frechet_distance(one, two)
    assert np.isfinite(distance)
    assert distance >= max(0, np.square(one.mean - two.mean).sum() * (1 - 1e-9) - 1e-6 * max(1, scale**2))
    assert frechet_distance(two, one) == pytest.approx(distance, rel=1e-5, abs=1e-5 * max(1, scale))
    assert 0 <= frechet_distance(one, one) <= 1e-6 * max(1, scale**2)


def test_frechet_distance_of_commuting_covariances_has_a_closed_form() -> None:
    """|μ₁ − μ₂|² + Σ (σ₁ − σ₂)²."""
    a = Statistics(np.zeros(3), np.diag([1.0, 4.0, 0.0]), 10)
    b = Statistics(np.array([1.0, 2.0, 0.0]), np.diag([9.0, 1.0, 0.25]), 10)
    assert frechet_distance(a, b) == pytest.approx(5 + 4 + 1 + 0.25)


@pytest.mark.parametrize(("n", "m"), [(20, 200), (200, 20), (20, 30), (64, 65)])
def test_frechet_distance_of_few_images_is_by_the_nuclear_norm(n: int, m: int) -> None:
    """With fewer images than features, the cross term is the nuclear norm of the product of the centred features."""
    a, b = features(n, 64, 0, 2.0), features(m, 64, 1)
    x, y = ((v - v.mean(axis=0)) / (len(v) - 1) ** 0.5 for v in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.square(x).sum() + np.square(y).sum() - 2 * cross
    assert frechet_distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e3])
def test_frechet_distance_scales_with_the_square_of_the_features(scale: float) -> None:
    """For singular covariances too, because nothing small is added or cut off."""
    a, b = features(20, 8, 0), features(30, 8, 1)
    b[:, 3:] = 0
    near, far = (frechet_distance(Statistics.of(s * a), Statistics.of(s * b)) for s in (1.0, scale))
    assert far == pytest.approx(scale**2 * near, rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 1),
    d=st.integers(1, 6),
    single=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_moments_of_parts_are_those_of_all_rows(sizes: list[int], d: int, single: bool, seed: int) -> None:
    """Parts may be empty. Statistics do not change when more rows are added."""
    values = features(sum(sizes), d, seed).astype(np.float32 if single else np.float64)
    moments = Moments(d)
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        moments.add(part)
    statistics = moments.statistics()
    assert statistics.n == sum(sizes)
    assert statistics.mean.dtype == statistics.covariance.dtype == np.float64
    double = values.astype(np.float64)
    covariance = np.cov(double, rowvar=False).reshape(d, d)
    np.testing.assert_allclose(statistics.mean, double.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-10, atol=1e-12)
    mean = statistics.mean.copy()
    moments.add(values + 1)
    np.testing.assert_array_equal(statistics.mean, mean)


def test_moments_far_from_zero_lose_no_digits() -> None:
    """A mean a million times the spread, in single rows, in parts, and in more rows than are centred at a time."""
    n = BLOCK + 500
    near = 1e-2 * features(n, 3, 0)
    values = near + 1e4
    moments = Moments(3)
    for part in [*np.split(values[:300], 300), *np.array_split(values[300:], 40)]:
        moments.add(part)
    for statistics in (moments.statistics(), Statistics.of(values)):
        assert statistics.n == n
        np.testing.assert_allclose(statistics.mean - 1e4, near.mean(axis=0), rtol=0, atol=1e-9)
        np.testing.assert_allclose(statistics.covariance, np.cov(near, rowvar=False), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", [2, 4, 5, 6])
def test_statistics_are_singular_if_the_covariance_lacks_rank(n: int) -> None:
    """n centred rows span at most n − 1 dimensions."""
    statistics = Statistics.of(features(n, 5, 0))
    assert statistics.singular == (np.linalg.matrix_rank(statistics.covariance) < 5) == (n < 6)


# --- Gabor features

COLOURS = slice(-gabor.CHANNELS * gabor.GRID**2, None)
"""The colour features, which follow the energies."""


@pytest.mark.parametrize("size", [16, 32, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_gabor_features_of_an_image_do_not_depend_on_its_batch(channels: int, size: int) -> None:
    """Grey gives the features of three equal channels."""
    images = noise(5, channels, size)
    rows = gabor.features(images)
    assert (rows.shape, rows.dtype) == ((5, gabor.DIMENSIONS), torch.float64)
    assert rows.isfinite().all()
    alone = torch.cat([gabor.features(image[None]) for image in images])
    torch.testing.assert_close(rows, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(rows, gabor.features(images.expand(-1, 3, -1, -1)), rtol=0, atol=1e-6)


def test_gabor_features_separate_colour_from_structure() -> None:
    """Brightness shifts the colour features alone; contrast scales the energies."""
    images = noise(4, 3, 32)
    plain, shifted, doubled = (gabor.features(x) for x in (images, images + 0.25, 2 * images))
    energy = slice(0, COLOURS.start)
    torch.testing.assert_close(shifted[:, COLOURS], plain[:, COLOURS] + 0.25, rtol=0, atol=1e-5)
    torch.testing.assert_close(shifted[:, energy], plain[:, energy], rtol=0, atol=1e-4)
    torch.testing.assert_close(doubled[:, energy], 2 * plain[:, energy], rtol=1e-4, atol=1e-5)
    assert plain[:, energy].min() > 1e-3


@pytest.mark.parametrize("k", range(gabor.ORIENTATIONS))
@pytest.mark.parametrize("band", range(len(gabor.WAVELENGTHS)))
def test_grating_excites_the_filters_of_its_wavelength_and_orientation_most(band: int, k: int) -> None:
    """Whatever its phase: amplitude ½ through a Gaussian of σ = λ/2 and unit energy gives ½ σ √(2π), borders aside."""
    row, column = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    angle, wavelength = math.pi * k / gabor.ORIENTATIONS, gabor.WAVELENGTHS[band]
    phase = 2 * math.pi / wavelength * (column * math.cos(angle) + row * math.sin(angle))
    gratings = torch.stack([torch.cos(phase), torch.sin(phase)])[:, None] / 2 + 0.5
    energies = gabor.features(gratings)[:, : COLOURS.start].reshape(2, -1, gabor.GRID**2).mean(dim=2)
    assert energies.argmax(dim=1).tolist() == [band * gabor.ORIENTATIONS + k] * 2
    expected = wavelength / 4 * math.sqrt(2 * math.pi)
    assert energies.amax(dim=1).tolist() == pytest.approx([expected] * 2, rel=0.2)


@pytest.mark.parametrize("n", [40, 200], ids=["fewer images than features", "more"])
def test_gabor_distance_grows_with_the_blur(n: int) -> None:
    blur = degradations.build({"name": "blur", "T": 4, "kernel": 5, "std": 1.0}, 32)
    images = noise(n, 3, 32)
    original = Statistics.of(gabor.features(images).numpy())
    distances = [
        frechet_distance(original, Statistics.of(gabor.features(blur(images, torch.full((n,), t), {})).numpy()))
        for t in range(5)
    ]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert all(a + 0.01 < b for a, b in itertools.pairwise(distances))


# --- kernel distance


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator pair by pair, as Bińkowski et al. (2018) write it."""

    def value(one: np.ndarray, other: np.ndarray) -> float:
        return (float(one @ other) / len(one) + 1) ** 3

    within = [np.mean([value(one, other) for one, other in itertools.permutations(list(rows), 2)]) for rows in (x, y)]
    return sum(within) - 2 * np.mean([value(one, other) for one in x for other in y])


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (9, 14, 5), (30, 30, 8)])
def test_kernel_distance_is_that_of_all_pairs(n: int, m: int, d: int) -> None:
    """If the only subset is the whole set, clean-fid agrees, and the spread is unknown."""
    a, b = features(n, d, 0), features(m, d, 1)
    assert kernel.squared_discrepancy(a, b) == pytest.approx(squared_discrepancy(a, b), rel=1e-9)
    if n == m:
        estimate = kernel.kernel_distance(a, b, 5)
        assert estimate.value == pytest.approx(squared_discrepancy(a, b), rel=1e-9)
        assert estimate.value == pytest.approx(cleanfid_kernel_distance(a, b, num_subsets=1), rel=1e-9)
        assert math.isnan(estimate.low + estimate.high)


def test_kernel_distance_agrees_with_clean_fid() -> None:
    """The means over many random subsets agree. The seed fixes the subsets."""
    a, b = features(300, 6, 0).astype(np.float32), features(200, 6, 1)
    np.random.seed(0)
    expected = cleanfid_kernel_distance(a, b, num_subsets=1500, max_subset_size=40)
    estimate, again, other = (kernel.kernel_distance(a, b, seed, subsets=1500, size=40) for seed in (0, 0, 1))
    deviation = (estimate.high - estimate.low) / 3.92
    assert estimate.value == pytest.approx(expected, abs=5 * deviation * (2 / 1500) ** 0.5)
    assert 0.05 < deviation / estimate.value < 2
    assert (estimate.n, estimate.singular) == (300, False)
    assert estimate == again
    assert estimate.value != other.value


def test_subset_holds_each_row_of_its_set_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 1000 rows, or as many as the smaller set. The bounds are percentiles over subsets."""
    subsets: list[tuple[np.ndarray, np.ndarray]] = []

    def record(x: np.ndarray, y: np.ndarray) -> float:
        subsets.append((x, y))
        return float(len(subsets) - 1)

    monkeypatch.setattr(kernel, "squared_discrepancy", record)
    a, b = np.arange(1200.0)[:, None], -1 - np.arange(1100.0)[:, None]
    assert kernel.kernel_distance(a, b, 0, subsets=101) == intervals.Estimate(50.0, 2.5, 97.5, 1200)
    for x, y in subsets:
        assert x.shape == y.shape == (1000, 1)
        assert len(np.unique(x)) == len(np.unique(y)) == 1000
        assert x.min() >= 0 > y.max()
    assert not np.array_equal(np.sort(subsets[0][0], axis=0), np.sort(subsets[1][0], axis=0))
    assert len(np.unique(np.concatenate([x for x, _ in subsets]))) == 1200
    for one, other in [(a, b[:7]), (a[:7], b)]:
        subsets.clear()
        kernel.kernel_distance(one, other, 0)
        assert len(subsets) == 100
        assert subsets[0][0].shape == subsets[0][1].shape == (7, 1)


def test_kernel_distance_is_unbiased() -> None:
    """For two samples of one distribution it is zero on average, so sometimes negative; it grows with a shift."""
    samples = [[np.random.default_rng((seed, k)).normal(size=(40, 4)) for k in (0, 1)] for seed in range(300)]
    values = [kernel.kernel_distance(a, b, 0).value for a, b in samples]
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values) / 300**0.5
    rows = features(600, 8, 0)
    distances = [kernel.kernel_distance(rows, rows + shift, 0, size=100).value for shift in (0, 0.2, 0.4, 0.8)]
    assert abs(distances[0]) < 0.1 * distances[1]
    assert all(a < b for a, b in itertools.pairwise(distances))


def test_distances_of_whole_sets_do_not_depend_on_the_order_of_rows() -> None:
    a, b = features(40, 6, 0), features(50, 6, 1)
    shuffled, target = np.random.default_rng(0).permutation(a), Statistics.of(b)
    distance = frechet_distance(Statistics.of(a), target)
    assert frechet_distance(Statistics.of(shuffled), target) == pytest.approx(distance, rel=1e-9)
    whole = kernel.kernel_distance(a, b[:40], 0).value
    assert kernel.kernel_distance(shuffled, b[:40], 1).value == pytest.approx(whole, rel=1e-9)


# --- refusals

A, B = features(9, 3, 0), features(9, 3, 1)
GOOD = Statistics.of(A)
BROKEN = np.where(np.arange(9)[:, None] == 4, np.nan, B)
INFINITE = Statistics(np.full(3, np.inf), GOOD.covariance, 9)
UNKNOWN = Statistics(GOOD.mean, np.full((3, 3), np.nan), 9)
REFUSALS: list[tuple[Callable[[], object], str]] = [  # call, offending value
    (lambda: Moments(3).statistics(), "features of 0 images"),
    (lambda: Statistics.of(A[:1]), "features of 1 image "),
    (lambda: Statistics.of(BROKEN), "features of image 4 are not finite"),
    (lambda: Statistics.of(np.where(np.isnan(BROKEN), np.inf, A)), "features of image 4 are not finite"),
    (lambda: Moments(3).add(A[:, :2]), r"shape \(9, 2\), not \(n, 3\)"),
    (lambda: Moments(3).add(A[0]), r"shape \(3,\), not \(n, 3\)"),
    (lambda: frechet_distance(GOOD, INFINITE), "not finite"),
    (lambda: frechet_distance(UNKNOWN, GOOD), "not finite"),
    (lambda: frechet_distance(GOOD, Statistics.of(features(9, 4, 0))), "3 and 4 features"),
    (lambda: kernel.kernel_distance(A[:1], B, 0), "2 images of each set"),
    (lambda: kernel.kernel_distance(A, B[:0], 0), "2 images of each set"),
    (lambda: kernel.kernel_distance(A, B, 0, subsets=0), "1 subset, not 9 and 0"),
    (lambda: kernel.kernel_distance(A, B[:, :2], 0), r"\(9, 3\) and \(9, 2\)"),
    (lambda: kernel.kernel_distance(A, BROKEN, 0), "not finite"),
    (lambda: kernel.kernel_distance(BROKEN, B, 0), "not finite"),
]


@pytest.mark.parametrize(("call", "names"), REFUSALS)
def test_features_without_a_distance_are_refused(call: Callable[[], object], names: str) -> None:
    with pytest.raises(ColdbenchError, match=names):
        call()
