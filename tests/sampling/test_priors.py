"""Starts of a generation: the fitted mixture, the drawn images, and the values of the released implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import SHARED

from coldbench import degradations
from coldbench.core.errors import ColdbenchError
from coldbench.sampling import priors

RELEASED = SHARED / "golden"
BLUR = {"name": "blur", "T": 4, "kernel": 5, "std": 1.0, "quantized": True}


def images(count: int, size: int = 16) -> torch.Tensor:
    """Images whose colours vary far more than their pixels."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randn(count, 3, 1, 1, generator=generator) @ torch.eye(1) * 0.3
    return colours + 0.05 * torch.randn(count, 3, size, size, generator=generator)


def test_one_component_has_the_mean_and_the_covariance() -> None:
    features = np.random.default_rng(0).multivariate_normal([1, -1], [[2, 0.5], [0.5, 1]], 500)
    mixture = priors.fit(features, 1, 0)
    np.testing.assert_allclose(mixture.means[0], features.mean(axis=0), atol=1e-12)
    covariance = np.cov(features.T, bias=True) + priors.REGULARISATION * np.eye(2)
    np.testing.assert_allclose(mixture.factors[0] @ mixture.factors[0].T, covariance, atol=1e-9)


def test_vectors_have_the_covariance_of_the_features() -> None:
    """Of correlated features with very different spreads, so that a factor and its transpose differ."""
    basis = np.array([[3.0, 2.0, 1.0], [0.0, 0.5, 0.4], [0.0, 0.0, 0.1]])
    features = np.random.default_rng(0).normal(size=(4000, 3)) @ basis + 5
    vectors = priors.fit(features, 1, 0).draw(torch.arange(4000), 7).numpy()
    scale = features.std(axis=0)
    np.testing.assert_allclose(np.cov((vectors / scale).T), np.cov((features / scale).T), atol=0.1)
    np.testing.assert_allclose(vectors.mean(axis=0) / scale, features.mean(axis=0) / scale, atol=0.1)


def test_vectors_follow_the_mixture_and_belong_to_their_image() -> None:
    factors = np.array([[[0.1, 0], [0.05, 0.2]], [[0.3, 0], [0, 0.1]]])
    mixture = priors.Mixture(np.array([0.25, 0.75]), np.array([[-5.0, 0.0], [5.0, 1.0]]), factors)
    every = mixture.draw(torch.arange(20_000), 7)
    first = every[:, 0] < 0
    assert first.double().mean() == pytest.approx(0.25, abs=0.015)
    for part, k in ((every[first], 0), (every[~first], 1)):
        np.testing.assert_allclose(part.mean(dim=0), mixture.means[k], atol=0.02)
        np.testing.assert_allclose(np.cov(part.T.numpy()), factors[k] @ factors[k].T, atol=0.01)
    some = torch.tensor([19_999, 3])
    assert torch.equal(mixture.draw(some, 7), every[some])
    assert not torch.equal(mixture.draw(some, 8), every[some])


def test_a_start_of_blur_has_one_colour_of_the_training_images_and_noise_per_pixel() -> None:
    blur = degradations.build(BLUR, 16)
    x0 = images(400)
    mixture = priors.fit(priors.features("means", blur, x0.split(150)), 1, 0)
    indices = torch.arange(3000)
    x, drawn = priors.draw("means", blur, indices, 1, 3, mixture)
    assert (x - x[:, :, :1, :1]).abs().max() == 0
    torch.testing.assert_close(blur(x, torch.full((3000,), 4), drawn), x, rtol=0, atol=1e-6)
    colours = x[:, :, 0, 0]
    torch.testing.assert_close(colours.mean(dim=0), x0.mean(dim=(0, 2, 3)), rtol=0, atol=0.03)
    torch.testing.assert_close(colours.std(dim=0), x0.mean(dim=(2, 3)).std(dim=0), rtol=0.06, atol=0)
    broken, _ = priors.draw("means", blur, indices[:50], 1, 3, mixture, noise_level=0.002)
    noise = broken - x[:50]
    assert noise.std().item() == pytest.approx(0.002, rel=0.03)
    assert noise.mean(dim=(2, 3)).std().item() == pytest.approx(0.002 / 16, rel=0.3)


def test_a_start_of_superresolution_has_blocks_that_D_does_not_change() -> None:
    halving = degradations.build({"name": "superresolution", "T": 3}, 16)
    features = priors.features("grid", halving, [images(100)])
    assert features.shape == (100, 12)
    x, drawn = priors.draw("grid", halving, torch.arange(5), 1, 3, priors.fit(features, 1, 0))
    assert x.shape == (5, 3, 16, 16)
    torch.testing.assert_close(halving(x, torch.full((5,), 3), drawn), x, rtol=0, atol=1e-6)
    assert len(x[0, 0].unique()) == 4


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("colour", {"name": "inpainting_generation", "T": 5, "std": 1.0, "rate": 2.0}),
        ("partner", {"name": "animorphosis", "T": 200, "partner": "photos"}),
        ("noise", {"name": "noise", "T": 200}),
    ],
)
def test_every_image_degrades_to_the_start(kind: str, spec: dict[str, object]) -> None:
    """D(x0, T) with the draw of the start is the start, apart from the last √ᾱ of the cosine schedule."""
    partners = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    degradation = degradations.build(spec, 16, partners)
    x, drawn = priors.draw(kind, degradation, torch.arange(6), 3, 3)
    ended = degradation(images(6), torch.full((6,), degradation.T), drawn)
    torch.testing.assert_close(ended, x, rtol=0, atol=1e-3)


def test_starts_that_do_not_fit_are_refused() -> None:
    blur = degradations.build(BLUR, 16)
    mixture = priors.Mixture(np.ones(1), np.zeros((1, 3)), np.eye(3)[None])
    refusals = {
        "start 'colour' .* blur .*: means": lambda: priors.draw("colour", blur, torch.arange(2), 0, 3, mixture),
        "start 'grid' .* blur .*: means": lambda: priors.draw("grid", blur, torch.arange(2), 0, 3, mixture),
        "'mean': did you mean 'means'": lambda: priors.draw("mean", blur, torch.arange(2), 0, 3, mixture),
        "mixture is missing": lambda: priors.draw("means", blur, torch.arange(2), 0, 3),
        "3 training images .* mixture of 5": lambda: priors.fit(np.zeros((3, 3)), 5, 0),
    }
    for words, call in refusals.items():
        with pytest.raises(ColdbenchError, match=words):
            call()


def test_mixture_and_features_are_those_of_the_released_code() -> None:
    """Mean and covariance of channel means, and the super-resolution features of photographs."""
    if not RELEASED.is_dir():
        pytest.skip(f"needs the recorded vectors in {RELEASED}")
    with np.load(RELEASED / "start_gmm_channel_means.npz") as stored:
        mixture = priors.fit(stored["gmm_fit_input"].astype(np.float64), 1, 0)
        np.testing.assert_allclose(mixture.means[0], stored["reference_mean_f64"], atol=1e-6)
        factor = mixture.factors[0]
        reference = stored["reference_covariance_biased_f64"] + priors.REGULARISATION * np.eye(3)
        np.testing.assert_allclose(factor @ factor.T, reference, atol=2e-6)
    with np.load(RELEASED / "start_superres_generation.npz") as stored:
        halving = degradations.build({"name": "superresolution", "T": 6, "reduce": "bicubic"}, 128)
        features = priors.features("grid", halving, [torch.from_numpy(stored["x0"])])
        np.testing.assert_allclose(features, stored["features"], atol=7e-5)
