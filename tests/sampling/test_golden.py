"""Trajectories recorded from the released implementation, from its own start images."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import GOLDEN
from torch import Tensor

from coldbench import degradations
from coldbench.degradations import Drawn
from coldbench.sampling.samplers import Step, sample

TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
ALGORITHMS = pytest.mark.parametrize(("algorithm", "method"), [("alg1", "naive"), ("alg2", "tacos")])
RANDOM_CENTRE = {"name": "inpainting", "T": 10, "std": 0.5, "rate": 0.5, "centre_low": -1, "centre_high": 31}


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def released(T: int) -> Callable[[Tensor, int], Tensor]:
    """The restoration of the recorded trajectories; its step index is s − 1."""
    return lambda x, s: 0.9 * x + 0.05 * torch.tanh(3 * x) + 0.05 * (s - 1) / T


def steps(spec: dict[str, Any], x: Tensor, drawn: Drawn, method: str, **options: Any) -> list[Step]:
    degradation = degradations.build(spec, x.shape[-1])
    return list(sample(released(degradation.T), degradation, x, drawn, method, **options))


def check(name: str, actual: Tensor, expected: Tensor) -> None:
    """Equal within the tolerance of the file `name`."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCES[name])


def check_start(name: str, spec: dict[str, Any], golden: dict[str, Tensor], drawn: Drawn) -> None:
    """x_T follows from x0."""
    degradation = degradations.build(spec, golden["x0"].shape[-1])
    check(name, degradations.initial_xt(degradation, golden["x0"], drawn), golden["sample_xt"])


def check_direct(name: str, spec: dict[str, Any], golden: dict[str, Tensor], drawn: Drawn) -> None:
    (direct,) = steps(spec, golden["sample_xt"], drawn, "direct")
    check(name, direct.x, golden["sample_direct_recons"])


@ALGORITHMS
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("samp_blur_mnist_constant_T10", {"name": "blur", "T": 10, "kernel": 11, "std": 7.0}),
        ("samp_superres_mnist_T3", {"name": "superresolution", "T": 3, "reduce": "bicubic"}),
    ],
)
def test_blur_and_superresolution(algorithm: str, method: str, name: str, spec: dict[str, Any]) -> None:
    golden = load(name := f"{name}_{algorithm}")
    walk = steps(spec, golden["sample_xt"], {}, method)
    iterates = torch.stack([golden["sample_xt"], *(step.x for step in walk)])
    check(name, iterates, torch.cat([golden["all_X_ts"], golden["sample_final"][None]]))
    if "all_X_0s" in golden:
        check(name, torch.stack([step.x0_hat for step in walk]), golden["all_X_0s"])
    check_direct(name, spec, golden, {})


@ALGORITHMS
@pytest.mark.parametrize("name", ["random_T10_discrete", "random_T10", "incremental_T10"])
def test_inpainting(algorithm: str, method: str, name: str) -> None:
    """Some iterates, at a drawn centre or at the middle. With 8-bit values x_T alone is truncated, iterates are not."""
    quantized = name.endswith("discrete")
    golden = load(name := f"samp_inpaint_{name}_{algorithm}")
    spec = {**RANDOM_CENTRE, "quantized": quantized}
    centre = torch.tensor([[15, 15]])
    if "rand_x" in golden:
        centre = 31 - torch.stack([golden["rand_x"], golden["rand_y"]], dim=1)
    drawn = {"centre": centre}
    iterates = torch.stack([step.x for step in steps(spec, golden["sample_xt"], drawn, method)])
    check(name, iterates[golden["selected"]], golden["all_xt_list"])
    check(name, iterates[-1], golden["sample_final"])
    check_direct(name, spec, golden, drawn)
    if not quantized:
        check_start(name, spec, golden, drawn)


@ALGORITHMS
def test_blur_of_growing_width(algorithm: str, method: str) -> None:
    """50 steps with reflect padding: x_T, some iterates and the direct reconstruction."""
    golden = load(name := f"samp_blur_cifar_special6_T50_{algorithm}")
    widths = {"std": 0.35, "schedule": "linear", "rate": 0.01}
    spec = {"name": "blur", "T": 50, "kernel": 11, "padding": "reflect", **widths}
    check_start(name, spec, {**golden, "sample_xt": golden["xt"]}, {})
    walk = steps(spec, golden["xt"], {}, method)
    for index in (40, 25, 10, 1, 0):  # the released step index
        check(name, walk[48 - index].x, golden[f"x_at_step_{index}"])
    check(name, walk[-1].x, golden["final"])
    check(name, walk[0].x0_hat, golden["direct_recons"])


@ALGORITHMS
def test_blur_to_the_mean(algorithm: str, method: str) -> None:
    """x_T is the mean colour, not truncated, and so is D(x̂_0, T); a second trajectory starts with noise on x_T."""
    golden = load(name := f"samp_blur_exponential_T12_discrete_{algorithm}")
    schedule = {"schedule": "exponential", "rate": 0.1, "quantized": True}
    spec = {"name": "blur", "T": 12, "kernel": 27, "std": 1.0, **schedule}
    check_start(name, spec, golden, {})
    check(name, steps(spec, golden["sample_xt"], {}, method)[-1].x, golden["sample_final"])
    check_direct(name, spec, golden, {})
    noisy = golden["all_X_ts"][0]
    iterates = torch.stack([noisy, *(step.x for step in steps(spec, noisy, {}, method))])
    check(name, iterates[golden["selected"]], golden["all_X_ts"])


@pytest.mark.parametrize(("kind", "method"), [("fixed_noise", "tacos"), ("estimated_noise_ddim", "estimated")])
def test_noise(kind: str, method: str) -> None:
    """From pure noise, kept fixed or estimated at every step."""
    golden = load(name := f"samp_hot_T10_{kind}")
    walk = steps({"name": "noise", "T": 10}, golden["noise"], {"z": golden["noise"]}, method)
    check(name, walk[3].x, golden["x_at_step_5"])
    check(name, walk[-1].x, golden["final"])


def test_animorphosis() -> None:
    golden = load(name := "samp_demix_T10")
    spec, drawn = {"name": "animorphosis", "T": 10, "partner": "photos"}, {"z": golden["x_end"]}
    noisy = golden["x_end"] + 0.002 * golden["randn"]
    check(name, steps(spec, noisy, drawn, "tacos")[-1].x, golden["gen_final"])
    check(name, steps(spec, golden["x_end"], drawn, "estimated")[-1].x, golden["sample_final"])


def test_inpainting_generation() -> None:
    golden = load(name := "samp_colourfade_T10")
    spec, drawn = {"name": "inpainting_generation", "T": 10, "std": 0.5, "rate": 0.5}, {"colour": golden["colour"]}
    start = golden["colour"][:, :, None, None].expand(-1, -1, 32, 32)
    for x, key in ((start, "sample_final"), (start + 0.002 * golden["randn"], "gen_final")):
        check(name, steps(spec, x, drawn, "tacos")[-1].x, golden[key])


@ALGORITHMS
def test_the_released_colour_sampler_shifts_every_severity(algorithm: str, method: str) -> None:
    golden = load(name := f"samp_decolor_T20_{algorithm}")
    spec = {"name": "decolorization", "T": 20}
    check(name, steps(spec, golden["sample_xt"], {}, method, released_shift=True)[-1].x, golden["sample_final"])


@pytest.mark.parametrize(
    ("name", "method", "fix_brightness"),
    [("samp_snow_T10_brightness_alg1", "naive", False), ("samp_snow_T10_fixbright_alg2", "tacos", True)],
)
def test_the_released_snow_sampler_shifts_every_severity(name: str, method: str, fix_brightness: bool) -> None:
    golden = load(name)
    spec = {"name": "snow", "T": 10, "level": 3, "fix_brightness": fix_brightness}
    flakes = degradations.build(spec, 32).enlarge(golden["snow_noise_f64"][None])
    drawn = {"flakes": flakes, "vertical": golden["vertical"].reshape(1).bool()}
    shifted = steps(spec, golden["sample_xt"], drawn, method, released_shift=True)[-1].x
    check(name, shifted, golden["sample_final"])
    assert (steps(spec, golden["sample_xt"], drawn, method)[-1].x - shifted).abs().max() > 1e-3
