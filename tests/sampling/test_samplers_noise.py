"""The samplers for noise and mixing, the released shift and partial trajectories: laws and golden values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from cases import GOLDEN
from torch import Tensor

from coldbench import degradations
from coldbench.core.errors import ColdbenchError
from coldbench.degradations import Drawn
from coldbench.degradations.mixing import Noise, cosine_alphas
from coldbench.sampling.samplers import Step, sample

TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())


def released(T: int):
    """The restoration that the golden trajectories were made with; its step index is s − 1."""
    return lambda x, s: 0.9 * x + 0.05 * torch.tanh(3 * x) + 0.05 * (s - 1) / T


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def walk(spec: dict[str, object], x: Tensor, state: Drawn, method: str, **options: object) -> dict[int, Tensor]:
    """The iterates of a trajectory by their severity."""
    degradation = degradations.build(spec, x.shape[-1])
    steps: list[Step] = list(sample(released(degradation.T), degradation, x, state, method, **options))
    return {step.s - 1: step.x for step in steps}


@pytest.mark.parametrize(("kind", "method"), [("fixed_noise", "tacos"), ("estimated_noise_ddim", "estimated")])
def test_golden_noise(kind: str, method: str) -> None:
    """From pure noise, kept fixed or estimated anew; recorded at severity 6 and at the end."""
    golden = load(name := f"samp_hot_T10_{kind}")
    iterates = walk({"name": "noise", "T": 10}, golden["noise"], {"z": golden["noise"]}, method)
    for s, key in ((6, "x_at_step_5"), (0, "final")):
        torch.testing.assert_close(iterates[s], golden[key], rtol=0, atol=TOLERANCES[name])


def test_golden_animorphosis() -> None:
    golden = load(name := "samp_demix_T10")
    spec, state = {"name": "animorphosis", "T": 10, "partner": "photos"}, {"z": golden["x_end"]}
    for x, method, key in (
        (golden["x_end"] + 0.002 * golden["randn"], "tacos", "gen_final"),
        (golden["x_end"], "estimated", "sample_final"),
    ):
        got = walk(spec, x, state, method)[0]
        torch.testing.assert_close(got, golden[key], rtol=0, atol=TOLERANCES[name])


def test_golden_inpainting_generation() -> None:
    golden = load(name := "samp_colourfade_T10")
    spec = {"name": "inpainting_generation", "T": 10, "std": 0.5, "rate": 0.5}
    start = golden["colour"][:, :, None, None].expand(-1, -1, 32, 32)
    for x, key in ((start, "sample_final"), (start + 0.002 * golden["randn"], "gen_final")):
        got = walk(spec, x, {"colour": golden["colour"]}, "tacos")[0]
        torch.testing.assert_close(got, golden[key], rtol=0, atol=TOLERANCES[name])


@pytest.mark.parametrize(("algorithm", "method"), [("alg1", "naive"), ("alg2", "tacos")])
def test_golden_shift_of_colour(algorithm: str, method: str) -> None:
    """The released samplers of snow and colour take every D one severity too low; ours do so when asked."""
    golden = load(name := f"samp_decolor_T20_{algorithm}")
    spec = {"name": "decolorization", "T": 20}
    shifted = walk(spec, golden["sample_xt"], {}, method, released_shift=True)[0]
    torch.testing.assert_close(shifted, golden["sample_final"], rtol=0, atol=TOLERANCES[name])


@pytest.mark.parametrize(
    ("name", "method", "fixed"),
    [("samp_snow_T10_brightness_alg1", "naive", False), ("samp_snow_T10_fixbright_alg2", "tacos", True)],
)
def test_golden_shift_of_snow(name: str, method: str, fixed: bool) -> None:
    golden = load(name)
    spec = {"name": "snow", "T": 10, "level": 3, "fix_brightness": fixed}
    snow = degradations.build(spec, 32)
    state = {"flakes": snow.enlarge(golden["snow_noise_f64"][None]), "vertical": golden["vertical"].reshape(1).bool()}
    got = walk(spec, golden["sample_xt"], state, method, released_shift=True)[0]
    torch.testing.assert_close(got, golden["sample_final"], rtol=0, atol=TOLERANCES[name])
    assert (walk(spec, golden["sample_xt"], state, method)[0] - got).abs().max() > 1e-3


def images(count: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def arbitrary(x: Tensor, s: int) -> Tensor:
    """A restoration of no merit."""
    return torch.tanh(2 * x.flip(3)) * (0.5 + 0.02 * s)


@pytest.mark.parametrize("stride", [1, 7])
def test_estimated_noise_is_ddim(stride: int) -> None:
    """Song et al. (2021), equation 12 with σ = 0, written with the predicted image as the noise's source."""
    T = 40
    noise, alphas = Noise(8, T), cosine_alphas(T)
    x = images(2)
    state = {"z": images(2, 1)}
    steps = list(sample(arbitrary, noise, x, state, "estimated", stride=stride))
    assert [step.s for step in steps] == list(range(T, 0, -stride))
    for step, r in zip(steps, [*(step.s for step in steps[1:]), 0], strict=True):
        s, x0 = step.s, arbitrary(x, step.s)
        epsilon = (x - math.sqrt(alphas[s]) * x0) / math.sqrt(1 - alphas[s])
        x = math.sqrt(alphas[r]) * x0 + math.sqrt(1 - alphas[r]) * epsilon
        torch.testing.assert_close(step.x, x, rtol=0, atol=1e-5 * float(x.abs().max() + 1))  # float32 tables
        x = step.x


def test_ddpm_has_the_posterior_of_the_schedule() -> None:
    """Mean and spread of x_{s−1} given x_s and x̂_0 are those of Ho et al. (2020), equation 7."""
    T, s, n = 30, 17, 40_000
    noise, alphas = Noise(8, T), cosine_alphas(T)
    x, x0 = images(1).expand(n, -1, -1, -1)[:, :1], 0.3

    def fresh(step: int) -> Drawn:
        return {"z": torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)}

    got = next(sample(lambda x, s: torch.full_like(x, x0), noise, x, {}, "ddpm", start=s, redraw=fresh)).x
    beta = 1 - alphas[s] / alphas[s - 1]
    mean = math.sqrt(alphas[s - 1]) * beta / (1 - alphas[s]) * x0
    mean = mean + math.sqrt(1 - beta) * (1 - alphas[s - 1]) / (1 - alphas[s]) * x[0, 0]
    spread = math.sqrt(beta * (1 - alphas[s - 1]) / (1 - alphas[s]))
    torch.testing.assert_close(got.mean(dim=0)[0], mean, rtol=0, atol=5 * spread / math.sqrt(n))
    assert got.std(dim=0).mean().item() == pytest.approx(spread, rel=0.02)


def test_resampling_draws_once_for_each_step() -> None:
    """Both D of a step share the new noise (else their difference would add noise), and each step has its own."""
    noise, asked = Noise(8, 6), []

    def fresh(s: int) -> Drawn:
        asked.append(s)
        return {"z": images(2, 100 + s)}

    x0 = images(2)
    for method in ("resampled", "naive_resampled"):
        asked.clear()
        x = noise(x0, torch.full((2,), 6), fresh(6))
        steps = list(sample(lambda x, s: x0, noise, x, {"z": x}, method, redraw=fresh))
        assert asked == [6, *range(6, 0, -1)]
        if method == "naive_resampled":
            for step in steps:
                expected = noise(x0, torch.full((2,), step.s - 1), {"z": images(2, 100 + step.s)})
                torch.testing.assert_close(step.x, expected)
    with pytest.raises(ColdbenchError, match="draws at every step"):
        next(sample(arbitrary, noise, x0, {"z": x0}, "resampled"))


def test_partial_trajectories() -> None:
    """From any severity, several at a time, always ending at 0; what cannot be is refused."""
    blur = degradations.build({"name": "blur", "T": 9, "kernel": 3, "std": 1.0}, 8)
    x0 = images(2)
    for start, every in ((9, 4), (5, 2), (1, 3)):
        x = blur(x0, torch.full((2,), start), {})
        steps = list(sample(lambda x, s: x0, blur, x, {}, "tacos", start=start, stride=every))
        assert [step.s for step in steps] == list(range(start, 0, -every))
        torch.testing.assert_close(steps[-1].x, x0, rtol=0, atol=1e-6)
    for start, every in ((0, 1), (10, 1), (9, 0)):
        with pytest.raises(ColdbenchError, match=f"severity {start} with stride {every} is out of range: 1…9"):
            next(sample(arbitrary, blur, x0, {}, "tacos", start=start, stride=every))
    with pytest.raises(ColdbenchError, match="needs noise or another image, not blur"):
        next(sample(arbitrary, blur, x0, {}, "estimated"))
