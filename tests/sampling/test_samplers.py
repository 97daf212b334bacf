"""Laws of the samplers: for any restoration R, for a perfect one, and against another library."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coldbench import degradations, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.degradations import Degradation, Drawn
from coldbench.degradations.mixing import Noise, cosine_alphas
from coldbench.sampling.samplers import sample

COLD = ("direct", "naive", "tacos")
SPECS: list[dict[str, Any]] = [
    {"name": "blur", "T": 5, "kernel": 5, "std": 1.0},
    {"name": "inpainting", "T": 5, "std": 1.0, "rate": 0.5, "centre_low": 2, "centre_high": 9},
    {"name": "superresolution", "T": 3, "reduce": "bicubic"},
]


@dataclass(frozen=True)
class Drift:
    """D(x, s) = x + s·e with a direction e per image: the form of the paper's argument in section 3.3."""

    size: int = 4
    T: int = 7
    quantized: bool = False
    linear: ClassVar[bool] = False

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        words = rng.uniform(seed, "direction", indices, draws=self.size**2)
        return {"e": (words - 0.5).reshape(-1, 1, self.size, self.size)}

    def __call__(self, x0: Tensor, t: Tensor, drawn: Drawn, /) -> Tensor:
        return x0 + t[:, None, None, None] * drawn["e"]


def images(count: int, size: int = 8, seed: int = 0, channels: int = 1) -> Tensor:
    """Uniform values in [-1, 1], float64 (count, channels, size, size)."""
    words = rng.uniform(seed, "image", torch.arange(count), draws=channels * size**2)
    return 2 * words.reshape(count, channels, size, size) - 1


def arbitrary(seed: int, scale: float) -> Callable[[Tensor, int], Tensor]:
    """Some R(x, s): a fixed random non-linear map of all pixels that changes with s."""

    def restore(x: Tensor, s: int) -> Tensor:
        side = x[0].numel()
        weights = rng.uniform(seed, f"R at {s}", torch.arange(side), draws=side) - 0.5
        return (scale * torch.sin(x.flatten(1) @ weights + s)).reshape(x.shape)

    return restore


def useless(x: Tensor, s: int) -> Tensor:
    """An R that restores nothing."""
    return torch.tanh(2 * x.flip(3)) * (0.5 + 0.002 * s)


def degraded(degradation: Degradation, x0: Tensor, s: int | None = None) -> tuple[Tensor, Drawn]:
    """x_s (default x_T) and what was drawn for it."""
    drawn = degradation.draw(torch.arange(len(x0)), 1)
    return degradation(x0, torch.full((len(x0),), degradation.T if s is None else s), drawn), drawn


# Direct reconstruction, Algorithm 1 and Algorithm 2


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), scale=st.floats(0, 100), start=st.integers(1, 7))
def test_tacos_is_exact_for_a_drift_and_any_restoration(seed: int, scale: float, start: int) -> None:
    """Section 3.3: with D(x, s) = x + s·e every iterate is D(x_0, s) whatever R returns; not so in Algorithm 1."""
    drift, x0 = Drift(), images(3, 4, seed)
    x, drawn = degraded(drift, x0, start)
    restore = arbitrary(seed, scale)
    steps = list(sample(restore, drift, x, drawn, "tacos", start))
    assert [step.s for step in steps] == list(range(start, 0, -1))
    for step in steps:
        expected = drift(x0, torch.full((3,), step.s - 1), drawn)
        torch.testing.assert_close(step.x, expected, rtol=0, atol=1e-11 * (1 + scale))
    *_, last = sample(restore, drift, x, drawn, "naive", start)
    assert torch.equal(last.x, last.x0_hat), "x_0 = D(x̂_0, 0) is the last prediction"
    assert (last.x - x0).abs().max() > 1e-3


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_tacos_telescopes(spec: dict[str, Any]) -> None:
    """With a constant R = r the steps add up to x_0 = x_T − D(r, T) + r; Algorithm 1 forgets x_T."""
    degradation = degradations.build(spec, 16)
    x, drawn = degraded(degradation, images(3, 16))
    r = images(3, 16, seed=5)
    *_, tacos = sample(lambda x, s: r, degradation, x, drawn, "tacos")
    expected = x - degradation(r, torch.full((3,), degradation.T), drawn) + r
    torch.testing.assert_close(tacos.x, expected, rtol=0, atol=1e-12)
    *_, naive = sample(lambda x, s: r, degradation, x, drawn, "naive")
    assert torch.equal(naive.x, r)


@pytest.mark.parametrize("method", COLD)
@pytest.mark.parametrize("spec", [*SPECS, None], ids=lambda spec: spec["name"] if spec else "drift")
def test_a_perfect_restoration_walks_back(spec: dict[str, Any] | None, method: str) -> None:
    """R = x_0 gives x_{s−1} = D(x_0, s−1) at every step of every method; direct reconstruction has one step."""
    degradation: Degradation = degradations.build(spec, 16) if spec else Drift(size=16)
    x0 = images(2, 16)
    x, drawn = degraded(degradation, x0)
    for step in sample(lambda x, s: x0, degradation, x, drawn, method):
        s = 0 if method == "direct" else step.s - 1
        torch.testing.assert_close(step.x, degradation(x0, torch.full((2,), s), drawn), rtol=0, atol=1e-12)
    torch.testing.assert_close(step.x, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", [None, 4, 1])
@pytest.mark.parametrize("method", COLD)
def test_the_restoration_receives_each_iterate_with_its_severity(method: str, start: int | None) -> None:
    """The severities are T, …, 1, or T alone; the first iterate is x_T."""
    drift, x0 = Drift(), images(2, 4)
    x, drawn = degraded(drift, x0, start)
    inputs: list[tuple[int, Tensor]] = []

    def restore(x: Tensor, s: int) -> Tensor:
        inputs.append((s, x.clone()))
        return 0.5 * x

    steps = list(sample(restore, drift, x, drawn, method, start))
    top = start or drift.T
    assert [s for s, _ in inputs] == ([top] if method == "direct" else list(range(top, 0, -1)))
    assert [step.s for step in steps] == [s for s, _ in inputs]
    for (_, iterate), previous in zip(inputs, [x, *(step.x for step in steps)], strict=False):
        assert torch.equal(iterate, previous)
    for (_, iterate), step in zip(inputs, steps, strict=True):
        assert torch.equal(step.x0_hat, 0.5 * iterate)


def test_the_networks_time_is_one_below_the_severity() -> None:
    """For every image; the network is in evaluation mode, without gradients."""

    class Echo(torch.nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            assert time.dtype == torch.int64
            assert not self.training
            return x * 0 + time[:, None, None, None]

    restored = models.restorer(Echo().train())(torch.ones(3, 1, 4, 4, requires_grad=True), 7)
    assert torch.equal(restored, torch.full((3, 1, 4, 4), 6.0))
    assert not restored.requires_grad


@pytest.mark.parametrize(("start", "stride"), [(9, 4), (5, 2), (1, 3)])
def test_a_trajectory_of_any_start_and_stride_ends_at_severity_0(start: int, stride: int) -> None:
    blur = degradations.build({**SPECS[0], "T": 9}, 8)
    x0 = images(2)
    x, drawn = degraded(blur, x0, start)
    steps = list(sample(lambda x, s: x0, blur, x, drawn, "tacos", start=start, stride=stride))
    assert [step.s for step in steps] == list(range(start, 0, -stride))
    torch.testing.assert_close(steps[-1].x, x0, rtol=0, atol=1e-6)


def test_circular_blur_keeps_the_mean_colour_in_tacos_and_not_in_algorithm_1() -> None:
    """For any R, because TACoS adds and subtracts only what has no mean (protocol 3.1)."""
    blur = degradations.build({"name": "blur", "T": 12, "kernel": 9, "std": 2.0, "padding": "circular"}, 16)
    x = images(4, 16, channels=3)
    means = x.mean(dim=(2, 3))
    for step in list(sample(useless, blur, x, {}, "tacos"))[:-1]:
        torch.testing.assert_close(step.x.mean(dim=(2, 3)), means, rtol=0, atol=1e-6)
    first = next(sample(useless, blur, x, {}, "naive"))
    assert (first.x.mean(dim=(2, 3)) - means).abs().max() > 1e-3


# Noise


@pytest.mark.parametrize("stride", [1, 7])
def test_estimated_noise_is_ddim(stride: int) -> None:
    """Song et al. (2021), equation 12 with σ = 0 and the noise that follows from the predicted image."""
    T = 40
    noise, alphas, x = Noise(8, T), cosine_alphas(T), images(2, channels=3)
    steps = list(sample(useless, noise, x, {}, "estimated", stride=stride))
    assert [step.s for step in steps] == list(range(T, 0, -stride))
    for step, r in zip(steps, [*(step.s for step in steps[1:]), 0], strict=True):
        s, x0 = step.s, useless(x, step.s)
        epsilon = (x - math.sqrt(alphas[s]) * x0) / math.sqrt(1 - alphas[s])
        x = math.sqrt(alphas[r]) * x0 + math.sqrt(1 - alphas[r]) * epsilon
        torch.testing.assert_close(step.x, x, rtol=0, atol=1e-5 * float(x.abs().max() + 1))  # float32 tables
        x = step.x


@pytest.mark.parametrize(("T", "stride"), [(40, 1), (40, 5), (200, 1), (200, 8)])
@pytest.mark.parametrize(("method", "eta"), [("estimated", 0.0), ("ddpm", 1.0)])
def test_estimated_noise_and_ddpm_are_the_schedulers_of_diffusers(T: int, stride: int, method: str, eta: float) -> None:
    """Over whole trajectories of Hugging Face diffusers: DDIM, and with η = 1 DDPM with the posterior's σ."""
    diffusers = pytest.importorskip("diffusers")
    alphas = cosine_alphas(T)
    peer = diffusers.DDIMScheduler(
        num_train_timesteps=T,
        trained_betas=1 - alphas[1:] / alphas[:-1],
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    peer.alphas_cumprod = torch.from_numpy(alphas[1:])  # its float32 values are too coarse for 1 − ᾱ of the first steps
    peer.set_timesteps(T // stride)
    noise, indices = Noise(8, T), torch.arange(3)

    def redraw(s: int) -> Drawn:
        return {"z": noise.draw(indices, seed=s)["z"].double()}

    x = redraw(0)["z"]
    steps = list(sample(useless, noise, x, {"z": x}, method, stride=stride, redraw=redraw))
    assert [int(t) + 1 for t in peer.timesteps] == [step.s for step in steps]
    for t, step in zip(peer.timesteps, steps, strict=True):
        options = {"variance_noise": redraw(step.s)["z"]} if eta else {}
        x = peer.step(useless(x, step.s), int(t), x, eta=eta, **options).prev_sample
        torch.testing.assert_close(step.x, x, rtol=0, atol=1e-5)


def test_ddpm_has_the_posterior_of_the_schedule() -> None:
    """Mean and spread of x_{s−1} given x_s and x̂_0 are those of Ho et al. (2020), equation 7."""
    T, s, n, x0 = 30, 17, 40_000, 0.3
    noise, alphas, x = Noise(8, T), cosine_alphas(T), images(1).expand(n, -1, -1, -1)

    def redraw(step: int) -> Drawn:
        return {"z": torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)}

    drawn = next(sample(lambda x, s: torch.full_like(x, x0), noise, x, {}, "ddpm", start=s, redraw=redraw)).x
    beta = 1 - alphas[s] / alphas[s - 1]
    mean = math.sqrt(alphas[s - 1]) * beta / (1 - alphas[s]) * x0
    mean = mean + math.sqrt(1 - beta) * (1 - alphas[s - 1]) / (1 - alphas[s]) * x[0, 0]
    spread = math.sqrt(beta * (1 - alphas[s - 1]) / (1 - alphas[s]))
    torch.testing.assert_close(drawn.mean(dim=0)[0], mean, rtol=0, atol=5 * spread / math.sqrt(n))
    assert drawn.std(dim=0).mean().item() == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize("method", ["resampled", "naive_resampled"])
def test_resampling_draws_once_for_each_step(method: str) -> None:
    """Both D of a step have the same noise; otherwise their difference would add noise."""
    noise, x0, severities = Noise(8, 6), images(2, channels=3), []

    def redraw(s: int) -> Drawn:
        severities.append(s)
        return {"z": images(2, seed=100 + s, channels=3)}

    x = noise(x0, torch.full((2,), 6), redraw(6))
    for step in sample(lambda x, s: x0, noise, x, {"z": x}, method, redraw=redraw):
        if method == "naive_resampled":
            expected = noise(x0, torch.full((2,), step.s - 1), {"z": images(2, seed=100 + step.s, channels=3)})
            torch.testing.assert_close(step.x, expected)
    assert severities == [6, *range(6, 0, -1)]


# Refusals


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("taco", {}, "method 'taco': did you mean 'tacos'"),
        ("Naive", {}, "method 'Naive': did you mean 'naive'"),
        ("dirct", {}, "method 'dirct': did you mean 'direct'"),
        ("estimated", {}, "method estimated .* not blur"),
        ("ddpm", {}, "method ddpm .* not blur"),
        ("tacos", {"start": 0}, "severity 0 .* 1…9"),
        ("tacos", {"start": 10}, "severity 10 .* 1…9"),
        ("tacos", {"stride": 0}, "stride 0 .* 1 or more"),
        ("resampled", {}, "redraw is missing"),
    ],
)
def test_what_no_sampler_can_do_is_refused(method: str, options: dict[str, int], words: str) -> None:
    blur = degradations.build({**SPECS[0], "T": 9}, 8)
    with pytest.raises(ColdbenchError, match=words):
        next(sample(useless, blur, images(2), {}, method, **options))
