"""Samplers as science: what holds for any restoration R, for a perfect one, and for the released implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coldbench import degradations, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.degradations import Degradation, Drawn
from coldbench.sampling.samplers import Step, sample

COLD = ("direct", "naive", "tacos")
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
SPECS = [
    {"name": "blur", "T": 5, "kernel": 5, "std": 1.0},
    {"name": "inpainting", "T": 5, "std": 1.0, "rate": 0.5, "centre_low": 2, "centre_high": 9},
    {"name": "superresolution", "T": 3, "reduce": "bicubic"},
]
METHOD = {"alg1": "naive", "alg2": "tacos"}


@dataclass(frozen=True)
class Drift:
    """D(x, s) = x + s·e with a direction e per image: the form that the paper's section 3.3 argues with."""

    size: int = 4
    T: int = 7
    quantized: bool = False
    linear: ClassVar[bool] = False

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        words = rng.uniform(seed, "direction", indices, draws=self.size**2)
        return {"e": (words - 0.5).reshape(-1, 1, self.size, self.size)}

    def __call__(self, x0: Tensor, t: Tensor, state: Drawn, /) -> Tensor:
        return x0 + t[:, None, None, None] * state["e"]


def images(n: int, size: int, seed: int = 0) -> Tensor:
    """Uniform noise in [-1, 1], float64 (n, 1, size, size)."""
    return 2 * rng.uniform(seed, "image", torch.arange(n), draws=size**2).reshape(n, 1, size, size) - 1


def arbitrary(seed: int, scale: float) -> Callable[[Tensor, int], Tensor]:
    """Some R(x, s): a fixed random non-linear map that changes with s and mixes all pixels."""

    def restore(x: Tensor, s: int) -> Tensor:
        side = x[0].numel()
        weights = rng.uniform(seed, f"R at {s}", torch.arange(side), draws=side) - 0.5
        return (scale * torch.sin(x.flatten(1) @ weights + s)).reshape(x.shape)

    return restore


def degraded(degradation: Degradation, x0: Tensor, s: int | None = None) -> tuple[Tensor, Drawn]:
    """x_T (or x_s) and the state it was made with."""
    state = degradation.draw(torch.arange(len(x0)), 1)
    return degradation(x0, torch.full((len(x0),), degradation.T if s is None else s), state), state


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), scale=st.floats(0, 100), start=st.integers(1, 7))
def test_tacos_is_exact_for_a_drift_and_any_restoration(seed: int, scale: float, start: int) -> None:
    """Section 3.3: with D(x, s) = x + s·e every iterate is D(x_0, s) whatever R answers; naive has no such luck."""
    drift, x0 = Drift(), images(3, 4, seed)
    x, state = degraded(drift, x0, start)
    restore = arbitrary(seed, scale)
    steps = list(sample(restore, drift, x, state, "tacos", start))
    assert [step.s for step in steps] == list(range(start, 0, -1))
    for step in steps:
        expected = drift(x0, torch.full((3,), step.s - 1), state)
        torch.testing.assert_close(step.x, expected, rtol=0, atol=1e-11 * (1 + scale))
    *_, last = sample(restore, drift, x, state, "naive", start)
    assert torch.equal(last.x, last.x0_hat), "x_0 = D(x̂_0, 0) is the last prediction itself"
    assert (last.x - x0).abs().max() > 1e-3


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_tacos_telescopes(spec: dict[str, object]) -> None:
    """With a constant R = r the steps add up: x_0 = x_T − D(r, T) + r; the naive sampler forgets x_T."""
    degradation = degradations.build(spec, 16)
    x, state = degraded(degradation, images(3, 16))
    r = images(3, 16, seed=5)
    *_, tacos = sample(lambda x, s: r, degradation, x, state, "tacos")
    expected = x - degradation(r, torch.full((3,), degradation.T), state) + r
    torch.testing.assert_close(tacos.x, expected, rtol=0, atol=1e-12)
    *_, naive = sample(lambda x, s: r, degradation, x, state, "naive")
    assert torch.equal(naive.x, r)


@pytest.mark.parametrize("method", COLD)
@pytest.mark.parametrize("spec", [*SPECS, None], ids=lambda spec: spec["name"] if spec else "drift")
def test_a_perfect_restoration_walks_back(spec: dict[str, object] | None, method: str) -> None:
    """R = x_0 gives x_{s−1} = D(x_0, s−1) at every step of every method; direct has but one."""
    degradation: Degradation = degradations.build(spec, 16) if spec else Drift(size=16)
    x0 = images(2, 16)
    x, state = degraded(degradation, x0)
    for step in sample(lambda x, s: x0, degradation, x, state, method):
        s = 0 if method == "direct" else step.s - 1
        torch.testing.assert_close(step.x, degradation(x0, torch.full((2,), s), state), rtol=0, atol=1e-12)
    torch.testing.assert_close(step.x, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", [None, 4, 1])
@pytest.mark.parametrize("method", COLD)
def test_what_the_restoration_is_asked(method: str, start: int | None) -> None:
    """R sees the current iterate, from x_T on, with its severity: T, …, 1, or T alone."""
    drift, x0 = Drift(), images(2, 4)
    x, state = degraded(drift, x0, start)
    asked: list[tuple[int, Tensor]] = []

    def restore(x: Tensor, s: int) -> Tensor:
        asked.append((s, x.clone()))
        return 0.5 * x

    steps = list(sample(restore, drift, x, state, method, start))
    top = start or drift.T
    assert [s for s, _ in asked] == ([top] if method == "direct" else list(range(top, 0, -1)))
    assert [step.s for step in steps] == [s for s, _ in asked]
    for (_, seen), before in zip(asked, [x, *(step.x for step in steps)], strict=False):
        assert torch.equal(seen, before)
    for (_, seen), step in zip(asked, steps, strict=True):
        assert torch.equal(step.x0_hat, 0.5 * seen)


def test_a_network_is_told_one_less() -> None:
    """Severity s is time s − 1 for the network, for every image; it runs in evaluation mode, without gradients."""

    class Echo(torch.nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            assert time.dtype == torch.int64
            assert not self.training
            return x * 0 + time[:, None, None, None]

    restored = models.restorer(Echo().train())(torch.ones(3, 1, 4, 4, requires_grad=True), 7)
    assert torch.equal(restored, torch.full((3, 1, 4, 4), 6.0))
    assert not restored.requires_grad


@pytest.mark.parametrize(("word", "nearest"), [("taco", "tacos"), ("Naive", "naive"), ("dirct", "direct")])
def test_an_unknown_method_suggests_the_nearest(word: str, nearest: str) -> None:
    drift = Drift()
    x, state = degraded(drift, images(1, 4))
    with pytest.raises(ColdbenchError, match=f"unknown method '{word}': did you mean '{nearest}'"):
        next(sample(lambda x, s: x, drift, x, state, word))


def load(name: str) -> dict[str, Tensor]:
    """A golden file as tensors."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def released(T: int) -> Callable[[Tensor, int], Tensor]:
    """The restoration that the golden trajectories were made with; its step index is s − 1."""
    return lambda x, s: 0.9 * x + 0.05 * torch.tanh(3 * x) + 0.05 * (s - 1) / T


def trajectory(
    name: str, spec: dict[str, object], algorithm: str, state: Drawn
) -> tuple[dict[str, Tensor], list[Step]]:
    """A golden file, and our steps from its start image; its direct reconstruction is checked on the way."""
    golden = load(f"{name}_{algorithm}")
    degradation = degradations.build(spec, golden["sample_xt"].shape[-1])
    restore = released(degradation.T)
    steps = list(sample(restore, degradation, golden["sample_xt"], state, METHOD[algorithm]))
    (direct,) = sample(restore, degradation, golden["sample_xt"], state, "direct")
    check(name, algorithm, direct.x, golden["sample_direct_recons"])
    return golden, steps


def check(name: str, algorithm: str, got: Tensor, expected: Tensor) -> None:
    """Equal within the tolerance of the file."""
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCES[f"{name}_{algorithm}"])


@pytest.mark.parametrize("algorithm", METHOD)
def test_golden_blur(algorithm: str) -> None:
    """Recorded: the state before every step, and the last state."""
    name = "samp_blur_mnist_constant_T10"
    golden, steps = trajectory(name, {"name": "blur", "T": 10, "kernel": 11, "std": 7.0}, algorithm, {})
    states = torch.stack([golden["sample_xt"], *(step.x for step in steps)])
    check(name, algorithm, states, torch.cat([golden["all_X_ts"], golden["sample_final"][None]]))


@pytest.mark.parametrize("algorithm", METHOD)
def test_golden_superresolution(algorithm: str) -> None:
    """Recorded: the state before every step, every prediction, and the final image."""
    name = "samp_superres_mnist_T3"
    golden, steps = trajectory(name, {"name": "superresolution", "T": 3, "reduce": "bicubic"}, algorithm, {})
    states = torch.stack([golden["sample_xt"], *(step.x for step in steps)])
    check(name, algorithm, states, torch.cat([golden["all_X_ts"], golden["sample_final"][None]]))
    check(name, algorithm, torch.stack([step.x0_hat for step in steps]), golden["all_X_0s"])


@pytest.mark.parametrize("algorithm", METHOD)
def test_golden_inpainting(algorithm: str) -> None:
    """Recorded: the state after some of the steps. The start image was truncated to 8 bits, later states were not."""
    name = "samp_inpaint_random_T10_discrete"
    windows = load(f"{name}_{algorithm}")
    spec = {"name": "inpainting", "T": 10, "std": 0.5, "rate": 0.5, "centre_low": -1, "centre_high": 31}
    state = {"centre": 31 - torch.stack([windows["rand_x"], windows["rand_y"]], dim=1)}
    golden, steps = trajectory(name, {**spec, "quantized": True}, algorithm, state)
    states = torch.stack([step.x for step in steps])
    check(name, algorithm, states[golden["selected"]], golden["all_xt_list"])
    check(name, algorithm, states[-1], golden["sample_final"])


@pytest.mark.parametrize("algorithm", METHOD)
def test_golden_blur_of_growing_width(algorithm: str) -> None:
    """50 steps with reflect padding. Recorded: some states before a step, the last state, the direct reconstruction."""
    name = "samp_blur_cifar_special6_T50"
    golden = load(f"{name}_{algorithm}")
    spec = {"name": "blur", "T": 50, "kernel": 11, "std": 0.35, "schedule": "linear", "rate": 0.01}
    degradation = degradations.build({**spec, "padding": "reflect"}, 32)
    check(name, algorithm, degradations.initial_xt(degradation, golden["x0"], {}), golden["xt"])
    steps = list(sample(released(50), degradation, golden["xt"], {}, METHOD[algorithm]))
    for i in (40, 25, 10, 1, 0):  # the released step index
        check(name, algorithm, steps[48 - i].x, golden[f"x_at_step_{i}"])
    check(name, algorithm, steps[-1].x, golden["final"])
    check(name, algorithm, steps[0].x0_hat, golden["direct_recons"])


@pytest.mark.parametrize("algorithm", METHOD)
def test_golden_blur_to_the_mean(algorithm: str) -> None:
    """x_T is the mean colour, not truncated, and so is D(x̂_0, T); a second trajectory starts with noise on x_T."""
    name = "samp_blur_exponential_T12_discrete"
    spec = {
        "name": "blur",
        "T": 12,
        "kernel": 27,
        "std": 1.0,
        "schedule": "exponential",
        "rate": 0.1,
        "quantized": True,
    }
    golden, steps = trajectory(name, spec, algorithm, {})
    degradation = degradations.build(spec, 32)
    check(name, algorithm, degradations.initial_xt(degradation, golden["x0"], {}), golden["sample_xt"])
    check(name, algorithm, steps[-1].x, golden["sample_final"])
    noisy = golden["all_X_ts"][0]
    states = [noisy, *(step.x for step in sample(released(12), degradation, noisy, {}, METHOD[algorithm]))]
    check(name, algorithm, torch.stack([states[i] for i in golden["selected"].tolist()]), golden["all_X_ts"])


@pytest.mark.parametrize("algorithm", METHOD)
@pytest.mark.parametrize("centre", ["incremental", "random"])
def test_golden_inpainting_in_full_precision(algorithm: str, centre: str) -> None:
    """Recorded: x_T, and the state after some of the steps; the centre is the middle or a drawn one."""
    name = f"samp_inpaint_{centre}_T10"
    stored = load(f"{name}_{algorithm}")
    at = (
        31 - torch.stack([stored["rand_x"], stored["rand_y"]], dim=1)
        if centre == "random"
        else torch.tensor([[15, 15]])
    )
    spec = {"name": "inpainting", "T": 10, "std": 0.5, "rate": 0.5, "centre_low": -1, "centre_high": 31}
    golden, steps = trajectory(name, spec, algorithm, {"centre": at})
    degradation = degradations.build(spec, 32)
    check(name, algorithm, degradations.initial_xt(degradation, golden["x0"], {"centre": at}), golden["sample_xt"])
    states = torch.stack([step.x for step in steps])
    check(name, algorithm, states[golden["selected"]], golden["all_xt_list"])
    check(name, algorithm, states[-1], golden["sample_final"])
