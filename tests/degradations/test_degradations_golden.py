"""Degradations against golden values of the implementation released with the paper (`golden/README.md`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import GOLDEN, SHARED
from torch import Tensor

from coldbench import degradations
from coldbench.degradations import Degradation, Drawn, network_input
from coldbench.degradations.blur import gaussian_weights
from coldbench.degradations.mixing import cosine_alphas

FULL = SHARED / "golden"
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
LEVEL = 2 / 255

Spec = dict[str, Any]


def blur(T: int, kernel: int, std: float, schedule: str = "constant", rate: float = 0.0, **more: Any) -> Spec:
    return {"name": "blur", "T": T, "kernel": kernel, "std": std, "schedule": schedule, "rate": rate, **more}


def masks(T: int, std: float, rate: float, low: int, high: int, quantized: bool = False) -> Spec:
    spec: Spec = {"name": "inpainting", "T": T, "std": std, "rate": rate, "quantized": quantized}
    return {**spec, "centre_low": low, "centre_high": high}


def fade(std: float) -> Spec:
    return {"name": "inpainting_generation", "T": 750, "std": std, "rate": 0.05}


def pixels(T: int, reduce: str = "bicubic", schedule: str = "halving") -> Spec:
    return {"name": "superresolution", "T": T, "reduce": reduce, "schedule": schedule}


def snow(T: int, level: int, fix_brightness: bool) -> Spec:
    return {"name": "snow", "T": T, "level": level, "fix_brightness": fix_brightness}


CELEBA = blur(200, 15, 1.0, "exponential", 0.01, padding="reflect")
GENERATION = blur(300, 27, 1.0, "exponential", 0.01)
CIFAR = blur(50, 11, 0.35, "linear", 0.01, padding="reflect")
INDIVIDUAL = blur(10, 1, 2.0, "linear", 4.0, kernel_rate=2)
ANYWHERE = {"low": -1, "high": 31, "quantized": True}

FILES: dict[str, Spec] = {
    "deg_blur_celeba_expreflect_T200": CELEBA,
    "deg_blur_cifar_special6_T50": CIFAR,
    "deg_blur_extra_constant_reflect_T20": blur(20, 11, 7.0, padding="reflect"),
    "deg_blur_extra_incremental_T50": blur(50, 3, 0.1, "linear", 0.1),
    "deg_blur_extra_individual_incremental_T10": INDIVIDUAL,
    "deg_blur_generation_exponential_T300": GENERATION,
    "deg_blur_generation_exponential_T300_discrete": {**GENERATION, "quantized": True},
    "deg_blur_mnist_constant_T20": blur(20, 11, 7.0),
    "deg_blur_mnist_constant_T40": blur(40, 11, 7.0),
    "deg_colourfade_reverse_T750_init1": fade(0.05),
    "deg_colourfade_reverse_T750_init11": fade(0.55),
    "deg_decolor_celeba_linear_T20": {"name": "decolorization", "T": 20},
    "deg_decolor_cifar_linear_T20": {"name": "decolorization", "T": 20},
    "deg_decolor_extra_constant_T20": {"name": "decolorization", "T": 20, "schedule": "constant", "keep": 0.9},
    "deg_demix_T200": {"name": "animorphosis", "T": 200, "partner": "photos"},
    "deg_demix_T1000": {"name": "animorphosis", "T": 1000, "partner": "photos"},
    "deg_inpaint_celeba_incremental_T100_init1": masks(100, 0.2, 0.2, 63, 63),
    "deg_inpaint_celeba_incremental_T100_init11": masks(100, 2.2, 0.2, 63, 63),
    "deg_inpaint_cifar_random_T50_init1_discrete": masks(50, 0.1, 0.1, **ANYWHERE),
    "deg_inpaint_cifar_random_T50_init11_discrete": masks(50, 1.1, 0.1, **ANYWHERE),
    "deg_inpaint_extra_constant_T10": masks(10, 2.0, 0.0, 15, 15),
    "deg_inpaint_mnist_random_T50_init1_discrete": masks(50, 0.1, 0.1, **ANYWHERE),
    "deg_inpaint_mnist_random_T50_init11_discrete": masks(50, 1.1, 0.1, **ANYWHERE),
    "deg_noise_T200": {"name": "noise", "T": 200},
    "deg_noise_T1000": {"name": "noise", "T": 1000},
    "deg_snow_celeba_level4_T200": snow(200, 4, True),
    "deg_snow_cifar_level3_T200_brightness": snow(200, 3, False),
    "deg_snow_cifar_level3_T200_horizontal": snow(200, 3, True),
    "deg_snow_cifar_level3_T200_vertical": snow(200, 3, True),
    "deg_snow_extra_level1_T50_fixedseed": snow(50, 1, False),
    "deg_snow_extra_level2_T50_fixedseed": snow(50, 2, False),
    "deg_superres_celeba_T4": pixels(4),
    "deg_superres_cifar_T3": pixels(3),
    "deg_superres_extra_incremental_T8": pixels(8, schedule="shrinking"),
    "deg_superres_extra_incremental_area_T8": pixels(8, "average", "shrinking"),
    "deg_superres_extra_incremental_area_factor_2_T3": pixels(3, "average"),
    "deg_superres_extra_incremental_bilinear_factor_2_T3": pixels(3, "bilinear"),
    "deg_superres_generation_T6": pixels(6),
    "deg_superres_mnist_T3": pixels(3),
}
SCHEDULES = {
    "mnist_constant_T20": blur(20, 11, 7.0),
    "mnist_constant_T40": blur(40, 11, 7.0),
    "cifar_special6_T50": CIFAR,
    "celeba_expreflect_T200": CELEBA,
    "generation_exponential_T300": GENERATION,
    "extra_incremental_T50": FILES["deg_blur_extra_incremental_T50"],
    "extra_individual_incremental_T10": INDIVIDUAL,
    "mnist_cifar_random_T50_init1": masks(50, 0.1, 0.1, **ANYWHERE),
    "mnist_cifar_random_T50_init11": masks(50, 1.1, 0.1, **ANYWHERE),
    "celeba_incremental_T100_init1": masks(100, 0.2, 0.2, 63, 63),
    "celeba_incremental_T100_init11": masks(100, 2.2, 0.2, 63, 63),
    "colourfade_T750_init1": fade(0.05),
    "colourfade_T750_init11": fade(0.55),
}
FOLDERS = [
    pytest.param(GOLDEN, id="cut"),
    pytest.param(FULL, id="full", marks=pytest.mark.skipif(not FULL.exists(), reason="the full files are missing")),
]
every_folder = pytest.mark.parametrize("folder", FOLDERS)


def load(folder: Path, name: str) -> dict[str, Tensor]:
    """The numeric arrays of a file as tensors."""
    with np.load(folder / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    return {key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items() if array.dtype.kind in "fib"}


def close(got: Tensor, expected: Tensor, atol: float) -> None:
    """Equal to within `atol`; a cut file holds one corner of the images."""
    if got.ndim >= 2:
        got = got[..., : expected.shape[-2], : expected.shape[-1]]
    torch.testing.assert_close(got.double(), expected.double(), rtol=0, atol=atol)


def recorded(degradation: Any, golden: dict[str, Tensor]) -> Drawn:
    """The random values of the images in a file."""
    n = len(golden["x0"])
    if "hole_row" in golden:
        return {"centre": torch.stack([golden["hole_row"], golden["hole_col"]], dim=1)}
    if "colour" in golden:
        return {"colour": golden["colour"]}
    if "x_end" in golden:
        return {"z": golden["x_end"]}
    if "snow_noise_f64" in golden:
        flakes = degradation.enlarge(golden["snow_noise_f64"][None])
        close(flakes[0], golden["snow_zoomed_f64"], 1e-12)
        return {"flakes": flakes.expand(n, -1, -1), "vertical": golden["vertical"].expand(n)}
    return degradation.draw(torch.zeros(n, dtype=torch.int64), 0)  # nothing is random, or the limits coincide


def check_levels(degradation: Degradation, golden: dict[str, Tensor], t: Tensor, drawn: Drawn) -> None:
    """The levels agree to 0.01. After truncation, a value near a step may lie on either side of it."""
    levels = (degradation(golden["x0"], t, drawn) + 1) * 0.5 * 255
    close(levels, golden["levels_before_truncation"], 0.01)
    height, width = golden["x_t"].shape[-2:]
    rounded = network_input(degradation, golden["x0"], t, drawn)[..., :height, :width]
    difference = (rounded - golden["x_t"]).abs()
    assert difference.max() <= LEVEL + 1e-4
    assert (difference > 1e-4).float().mean() < 0.01


def check_operators(degradation: Any, golden: dict[str, Tensor], drawn: Drawn) -> None:
    """The other arrays of a file: masks, weights of the image or the colour, layers of snow, kernels."""
    T, n = degradation.T, len(golden["x0"])
    severities = torch.arange(1, T + 1)
    if "cumulative_mask" in golden:
        close(degradation.mask(golden["t_index"] + 1, drawn), golden["cumulative_mask"], 2e-6)
    if "alpha_mean_per_step" in golden:
        weight = degradation.operators_on(torch.device("cpu"))[1:]
        close(weight.mean(dim=(1, 2)), golden["alpha_mean_per_step"], 2e-6)
        close(weight[:, 0, 0], golden["alpha_corner_per_step"], 2e-6)
        close(weight[:, 63, 63], golden["alpha_centre_per_step"], 2e-6)
    if "keep_factor_per_step" in golden:
        shares = torch.from_numpy(degradation.operators())
        close(shares[1:] / shares[:-1], golden["keep_factor_per_step"], 2e-6)
    if "fully_degraded" in golden:
        close(degradation(golden["x0"], torch.full((n,), T), drawn)[:1], golden["fully_degraded"], 2e-6)
    if "layer_mean_per_step" in golden:
        layers = degradation.snow(
            severities, {key: value[:1].expand(T, *value.shape[1:]) for key, value in drawn.items()}
        )
        close(layers.mean(dim=(1, 2)), golden["layer_mean_per_step"], 2e-6)
        for key in ("layer_20", "layer_49", "layer_60", "layer_199"):
            if key in golden:
                close(layers[int(key[6:])], golden[key], 2e-6)
    for key, kernel in golden.items():
        if key.startswith("kernel_step"):
            i = int(key[11:])
            weights = torch.from_numpy(gaussian_weights(int(degradation.kernels()[i]), float(degradation.stds()[i])))
            close(torch.outer(weights, weights), kernel, 2e-6)


@every_folder
@pytest.mark.parametrize("name", FILES)
def test_degraded_images_are_those_of_the_released_q_sample(folder: Path, name: str) -> None:
    """Its index i is severity i + 1."""
    golden = load(folder, name)
    degradation = degradations.build(FILES[name], golden["x0"].shape[-1])
    t, drawn = golden["t_index"] + 1, recorded(degradation, golden)
    if "levels_before_truncation" in golden:
        check_levels(degradation, golden, t, drawn)
    else:
        close(network_input(degradation, golden["x0"], t, drawn), golden["x_t"], TOLERANCES[name])
    check_operators(degradation, golden, drawn)


def test_every_golden_file_is_compared() -> None:
    for folder in filter(Path.exists, (GOLDEN, FULL)):
        assert {path.stem for path in folder.glob("deg_*.npz")} == set(FILES)


@every_folder
def test_every_step_has_the_released_standard_deviation_and_kernel(folder: Path) -> None:
    blurs, masks = load(folder, "sched_blur"), load(folder, "sched_masks")
    for name, spec in SCHEDULES.items():
        degradation: Any = degradations.build(spec, 128)
        golden = blurs if spec["name"] == "blur" else masks
        close(torch.from_numpy(degradation.stds()), golden[f"{name}_std_f64"], 2e-6)
        if spec["name"] == "blur":
            assert degradation.kernels().tolist() == golden[f"{name}_kernel_size"].tolist()


@every_folder
def test_schedules_of_noise_colour_and_size_are_the_released_ones(folder: Path) -> None:
    for key, expected in load(folder, "sched_cosine").items():
        T = int(key.rsplit("_T", 1)[1])
        alphas = torch.from_numpy(cosine_alphas(T))
        weights = torch.from_numpy(degradations.build({"name": "noise", "T": T}, 2).operators())
        got = {
            "betas": 1 - alphas[1:] / alphas[:-1],
            "alphas_cumprod": alphas[1:],
            "sqrt_alphas_cumprod": weights[1:, 0],
            "sqrt_one_minus_alphas_cumprod": weights[1:, 1],
        }[key.rsplit("_T", 1)[0]]
        close(got, expected, TOLERANCES["sched_cosine"][key])
    colour = load(folder, "sched_decolor_linear")
    for T in (20, 50):
        shares = torch.from_numpy(degradations.build({"name": "decolorization", "T": T}, 2).operators())
        close(shares[1:], colour[f"cumulative_keep_T{T}"], 2e-6)
        close(shares[1:] / shares[:-1], colour[f"keep_factor_T{T}"], 2e-6)
    for key, sides in load(folder, "sched_superres").items():
        size, T = (int(word[1:]) for word in key.split("_")[2:])
        degradation: Any = degradations.build({"name": "superresolution", "T": T}, size)
        assert degradation.sides() == sides.tolist()


@every_folder
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_levels_of_snow_are_the_released_ones(folder: Path, level: int) -> None:
    """Threshold, motion blur and brightening at all severities, measured at the output."""
    golden, T, size = load(folder, "sched_snow"), 200, 32
    snow: Any = degradations.build({"name": "snow", "T": T, "level": level, "fix_brightness": False}, size)
    t, middle = torch.arange(1, T + 1), size // 2
    along = torch.zeros(T, dtype=torch.bool)
    for change, visible in ((1e-5, True), (-1e-5, False)):  # the recorded thresholds are float32
        flakes = torch.zeros(T, size, size, dtype=torch.float64)
        flakes[:, middle, middle] = golden[f"level{level}_T200_threshold"].double() + change
        layers = snow.snow(t, {"flakes": flakes, "vertical": along})
        assert ((layers.sum(dim=(1, 2)) > 0) == visible).all()
    flakes = torch.zeros(T, size, size, dtype=torch.float64)
    flakes[:, middle, middle] = 9.0  # clipped to 1
    layers = snow.snow(t, {"flakes": flakes, "vertical": along})
    reach = int(golden["blur_size_per_level"][level - 1]) // 2
    stds = golden[f"level{level}_T200_blur_sigma"].double()[:, None]
    weights = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * stds**2))
    expected = torch.zeros(T, size, size, dtype=torch.float64)
    expected[:, middle, middle - reach : middle + reach + 1] = weights / weights.sum(dim=1, keepdim=True)
    close(layers, expected, 4e-6)
    black, none = torch.full((T, 3, size, size), -1.0), torch.zeros(T, size, size, dtype=torch.float64)
    brightened = (snow(black, t, {"flakes": none, "vertical": along})[:, 0, 0, 0] + 1) / 2  # black becomes 0.5
    close(1 - 2 * brightened, golden[f"level{level}_T200_brightness"], 2e-6)
    layer = [golden[f"{key}_per_level"][level - 1] for key in ("noise_loc", "noise_scale", "zoom")]
    close(torch.tensor([snow.constants.mean, snow.constants.std, snow.constants.zoom]), torch.stack(layer), 2e-6)


def test_values_follow_from_the_definitions_of_the_protocol() -> None:
    """Worked out by hand, to the digits stated."""

    def near(got: Any, expected: Any, digits: int) -> None:
        np.testing.assert_allclose(got, expected, rtol=0, atol=0.501 * 10.0**-digits)

    half = gaussian_weights(11, 7.0)[:6]
    near(half, [0.077696, 0.085170, 0.091476, 0.096264, 0.099257, 0.100275], 6)
    near(gaussian_weights(11, 7.0) @ np.arange(-5, 6) ** 2, 9.22545, 5)
    for kernel, std, centre, end in [
        (11, 0.35, 0.967343, 0),
        (15, 1, 0.398942, 9.13e-12),
        (15, np.exp(1.99), 0.078453, 0.049635),
        (27, np.exp(2.99), 0.039898, 0.032221),
    ]:
        near(gaussian_weights(kernel, std)[[kernel // 2, 0]], [centre, end], 6)

    def table(spec: Spec, size: int) -> Any:
        built: Any = degradations.build(spec, size)
        return built.operators()

    random = table(masks(50, 1.1, 0.1, **ANYWHERE), 32)[50]  # all of its 64 × 64 pixels, the centre at 31
    row = [0, 0, 0, 0, 0.00043, 0.03362, 0.24506, 0.58062, 0.82369, 0.93859, 0.98131]
    near(random[31, 31:52:2], row, 5)
    near(random.mean(), 0.84903, 5)
    central = table(masks(100, 0.2, 0.2, 63, 63), 128)[100]
    near(central[63, 63:124:10], [0, 0, 0, 0.00021, 0.10083, 0.58769, 0.90325], 5)
    near(central.mean(), 0.52565, 5)
    near(central[127, 127], 0.99983, 5)
    covers = table({**fade(0.05), "order": "outwards"}, 128)
    means = [1, 0.97017, 0.77060, 0.36481, 0.10558, 0.012856, 2.785e-4, 1.432e-5]
    near(covers[[0, 100, 250, 400, 500, 600, 700, 749]].mean(axis=(1, 2)), means, 5)
    near(covers[749, 127, 127], 0.00701, 5)
    near(1 - table(fade(0.05), 128)[1].mean(), 1.432e-5, 8)

    one = torch.zeros(1, 1, 16, 16)
    one[0, 0, 7, 7] = 1
    halved = degradations.build(pixels(1), 16)(one, torch.tensor([1]), {})[0, 0, ::2, ::2]
    near(halved[3:5, 3:5], [[0.3525, -0.0557], [-0.0557, 0.0088]], 4)
    step = table(pixels(1), 16)[1]
    near(step[6, 5:9], [-0.09375, 0.59375, 0.59375, -0.09375], 10)

    alphas = cosine_alphas(200)[1:]
    near(alphas[[0, 1, 9, 49, 99, 149, 189]], [0.999745, 0.999369, 0.992007, 0.847012, 0.493844, 0.144272, 0.006060], 6)
    near(alphas[[197, 198]], [2.4286e-4, 6.072e-5], 8)
    near(alphas[199], 6.072e-8, 11)
    near(cosine_alphas(500)[1], 0.999913, 6)
    near(cosine_alphas(500)[500], 9.715e-9, 12)
    for T, expected in [(20, [0.95, 0.947368, 0.9, 0.5, 0]), (50, [0.98, 0.979592, 0.96, 0.5, 0])]:
        shares = table({"name": "decolorization", "T": T}, 16)
        near((shares[1:] / shares[:-1])[[0, 1, T // 2, T - 2, T - 1]], expected, 6)
