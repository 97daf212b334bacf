"""Degradations: laws that hold for every registered one, the step-by-step recursion as oracle, golden vectors, errors.

A new degradation needs a line in EXAMPLES and one in ORACLES; the laws and the comparison then cover it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from coldbench import degradations
from coldbench.degradations import DEGRADATIONS, Degradation, State, observe
from coldbench.errors import ColdbenchError

GOLDEN = Path(__file__).parent / "golden"
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
SIZE = 16
LEVEL = 2 / 255

Spec = dict[str, Any]

EXAMPLES: dict[str, list[Spec]] = {
    "blur": [
        {"T": 5, "kernel": 11, "std": 7.0},
        {"T": 4, "kernel": 31, "std": 6.0, "padding": "reflect"},  # the widest kernel that fits
        {"T": 6, "kernel": 5, "std": 0.35, "schedule": "linear", "rate": 0.2, "padding": "reflect"},
        {"T": 6, "kernel": 31, "std": 0.5, "schedule": "exponential", "rate": 0.3},
    ],
    "inpainting": [
        {"T": 6, "std": 1.1, "rate": 0.4, "centre_low": -1, "centre_high": SIZE - 1},
        {"T": 6, "std": 1.1, "rate": 0.4, "centre_low": 3, "centre_high": 12, "discrete": True},
        {"T": 3, "std": 4.0, "rate": 0.0, "centre_low": 7, "centre_high": 7},
    ],
    "superresolution": [{"T": 4}, {"T": 3, "reduce": "bicubic"}],
}
CASES = [
    pytest.param({"name": name, **spec}, id="-".join([name, *map(str, spec.values())]))
    for name in DEGRADATIONS
    for spec in EXAMPLES.get(name, [])
]
every_example = pytest.mark.parametrize("spec", CASES)


def blur_step_by_step(spec: Spec, x: Tensor, t: int, state: State) -> Tensor:
    """Pad, convolve with a two-dimensional kernel, t times over."""
    std, rate, reach = spec["std"], spec.get("rate", 0), spec["kernel"] // 2
    for i in range(t):
        stds = {"constant": std, "linear": std + rate * i, "exponential": std * math.exp(rate * i)}
        places = torch.arange(-reach, reach + 1) / stds[spec.get("schedule", "constant")]
        line = torch.exp(-places.square() / 2)
        kernel = torch.outer(line, line) / line.sum() ** 2
        padded = functional.pad(x, [reach] * 4, mode=spec.get("padding", "circular"))
        x = functional.conv2d(padded, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])
    return x


def inpainting_step_by_step(spec: Spec, x: Tensor, t: int, state: State) -> Tensor:
    """Multiply by one Gaussian mask after another."""
    pixels = torch.arange(x.shape[-1])
    row, column = (pixels - state["centre"][:, [axis]] for axis in (0, 1))
    distance2 = row.square()[:, None, :, None] + column.square()[:, None, None, :]
    for i in range(t):
        x = x * (1 - torch.exp(-distance2 / (2 * (spec["std"] + spec["rate"] * i) ** 2)))
    return x


def superresolution_step_by_step(spec: Spec, x: Tensor, t: int, state: State) -> Tensor:
    """Shrink what the last step left, and enlarge it again."""
    how = {"mode": "bicubic", "align_corners": False} if spec.get("reduce") == "bicubic" else {"mode": "area"}
    size = x.shape[-1]
    for i in range(t):
        x = functional.interpolate(x, size=size // 2 ** (i + 1), **how)
        x = functional.interpolate(x, size=size, mode="nearest-exact")
    return x


ORACLES: dict[str, Callable[[Spec, Tensor, int, State], Tensor]] = {
    "blur": blur_step_by_step,
    "inpainting": inpainting_step_by_step,
    "superresolution": superresolution_step_by_step,
}


def gain(spec: Spec) -> float:
    """How far outside [-1, 1] an image may come to lie: only the bicubic filter's negative weights overshoot."""
    return 1.375**2 if spec.get("reduce") == "bicubic" else 1.0


def keeps_mean(spec: Spec) -> bool:
    """Whether every pixel passes on a total weight of 1, so that an image keeps its mean colour."""
    if spec["name"] == "blur":
        return bool(spec.get("padding", "circular") == "circular")
    return spec["name"] == "superresolution" and spec.get("reduce", "average") == "average"


@st.composite
def batches(draw: st.DrawFn, degradation: Degradation, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    """Images, severities that include the extremes, the images' indices and their state."""
    t = torch.tensor(draw(st.lists(st.integers(0, degradation.T), min_size=1, max_size=5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = 2 * torch.rand(len(t), draw(st.sampled_from([1, 3])), SIZE, SIZE, generator=generator, dtype=dtype) - 1
    x = x.sign() if draw(st.booleans()) else x  # black and white reaches the limits of the range
    indices = torch.tensor(draw(st.lists(st.integers(0, 10**6), min_size=len(t), max_size=len(t), unique=True)))
    seed = draw(st.integers(0, 2**63 - 1))
    return x, t, indices, seed, degradation.draw(indices, seed)


def test_every_degradation_is_covered() -> None:
    for name in DEGRADATIONS:
        assert EXAMPLES.get(name), f"no example of {name}: the laws do not cover it"
        assert name in ORACLES, f"no recursion for {name}"


@every_example
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_laws(spec: Spec, dtype: torch.dtype, data: st.DataObject) -> None:
    """Identity at 0, shape, dtype, range, mean, linearity, and one image at a time, for one arbitrary batch."""
    degradation = degradations.build(spec, SIZE)
    assert isinstance(degradation, Degradation)
    x, t, indices, seed, state = data.draw(batches(degradation, dtype))
    exact = {"rtol": 0, "atol": 5e-6 if dtype == torch.float32 else 1e-12}

    before = x.clone()
    y = degradation(x, t, state)
    assert torch.equal(x, before), "the input was changed"
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.abs().max() <= gain(spec) + 1e-5
    assert torch.equal(y[t == 0], x[t == 0])
    assert torch.equal(degradation(x, torch.zeros_like(t), state), x)
    assert torch.equal(degradation(x, t, state), y), "not deterministic"

    for i in range(len(x)):  # the same alone, with its state drawn alone
        alone = degradation(x[[i]], t[[i]], degradation.draw(indices[[i]], seed))
        torch.testing.assert_close(alone, y[[i]], **exact)
    if keeps_mean(spec):
        torch.testing.assert_close(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0, atol=5e-6)  # float32 tables
    if degradation.linear:
        other = x.flip(0, 2)
        mixed = degradation(0.3 * x - 0.6 * other, t, state)
        torch.testing.assert_close(mixed, 0.3 * y - 0.6 * degradation(other, t, state), **exact)


@every_example
def test_every_severity_degrades(spec: Spec) -> None:
    """No two neighbouring severities are the same operation, and a full batch of severities is allowed."""
    degradation = degradations.build(spec, SIZE)
    t = torch.arange(degradation.T + 1)
    x = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).expand(len(t), -1, -1, -1)
    state = degradation.draw(torch.zeros_like(t), 0)
    y = degradation(x, t, state)
    assert ((y[1:] - y[:-1]).abs().amax(dim=(1, 2, 3)) > 1e-4).all()


@every_example
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**63 - 1), order=st.permutations(range(50)), cut=st.integers(1, 50))
def test_state_belongs_to_the_image(spec: Spec, seed: int, order: list[int], cut: int) -> None:
    """A state depends on the seed and the image's index, never on the batch or its order."""
    degradation = degradations.build(spec, SIZE)
    every = degradation.draw(torch.arange(50), seed)
    chosen = torch.tensor(order[:cut])
    for key, value in degradation.draw(chosen, seed).items():
        assert torch.equal(value, every[key][chosen])


@every_example
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_the_recursion(spec: Spec, channels: int) -> None:
    degradation = degradations.build(spec, SIZE)
    x = 2 * torch.rand(3, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(channels)) - 1
    state = degradation.draw(torch.tensor([5, 0, 77]), 1)
    for t in range(degradation.T + 1):
        expected = ORACLES[spec["name"]](spec, x, t, state)
        torch.testing.assert_close(degradation(x, torch.full((3,), t), state), expected, rtol=0, atol=2e-5)


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(4, 20),
    T=st.integers(1, 8),
    reach=st.integers(1, 9),
    std=st.floats(0.2, 9),
    schedule=st.sampled_from(["constant", "linear", "exponential"]),
    rate=st.floats(0, 0.5),
    padding=st.sampled_from(["circular", "reflect"]),
)
def test_any_blur_agrees_with_the_recursion(size: int, reach: int, **parameters: Any) -> None:
    """The same over the whole space of parameters: borders, odd sizes and kernels as wide as the image included."""
    spec = {"name": "blur", "kernel": 2 * min(reach, size - 1) + 1, **parameters}
    x = 2 * torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(size)) - 1
    got = degradations.build(spec, size)(x, torch.tensor([spec["T"]]), {})
    torch.testing.assert_close(got, blur_step_by_step(spec, x, spec["T"], {}), rtol=0, atol=2e-5)


def test_inpainting_centres() -> None:
    """The centre is uniform over the whole declared square, rows apart from columns, and another one per seed."""
    spec = {"name": "inpainting", "T": 2, "std": 1.0, "rate": 0.1, "centre_low": -1, "centre_high": 2}
    degradation = degradations.build(spec, SIZE)
    centre = degradation.draw(torch.arange(4000), 3)["centre"]
    places = ((centre + 1) * torch.tensor([4, 1])).sum(dim=1).bincount(minlength=16)
    assert places.shape == (16,)
    assert places.min() > 150, "expected 250 of 4000 at each of the 16 places"
    assert not torch.equal(centre, degradation.draw(torch.arange(4000), 4)["centre"])


def test_observe_truncates() -> None:
    """Discrete: of the 256 exact 8-bit values 63 come out one level lower and the others as they are; else nothing."""
    spec = {"name": "inpainting", "T": 2, "std": 1.0, "rate": 0.1, "centre_low": 0, "centre_high": 0}
    x = (torch.arange(256, dtype=torch.float32) / 255 * 2 - 1).reshape(1, 1, SIZE, SIZE)
    for t in (0, 2):
        severity = torch.tensor([t])
        plain, truncating = (degradations.build({**spec, "discrete": flag}, SIZE) for flag in (False, True))
        state = plain.draw(severity, 0)
        exact = plain(x, severity, state)
        assert torch.equal(observe(plain, x, severity, state), exact)
        assert torch.equal(truncating(x, severity, state), exact), "only what the network is shown is truncated"
        lower = (exact - observe(truncating, x, severity, state)) / LEVEL
        assert lower.min() > -1e-3
        assert lower.max() < 1 + 1e-3
        if t == 0:
            assert lower.round().sum() == 63


BLUR_MNIST = {"name": "blur", "kernel": 11, "std": 7.0}
HALVE = {"name": "superresolution", "reduce": "bicubic"}
GOLDEN_FILES: dict[str, Spec] = {
    "deg_blur_mnist_constant_T20": {**BLUR_MNIST, "T": 20},
    "deg_blur_mnist_constant_T40": {**BLUR_MNIST, "T": 40},
    "deg_blur_cifar_special6_T50": {
        **{"name": "blur", "T": 50, "kernel": 11, "std": 0.35, "schedule": "linear", "rate": 0.01},
        "padding": "reflect",
    },
    "deg_blur_celeba_expreflect_T200": {
        **{"name": "blur", "T": 200, "kernel": 15, "std": 1.0, "schedule": "exponential", "rate": 0.01},
        "padding": "reflect",
    },
    "deg_blur_generation_exponential_T300": {
        **{"name": "blur", "T": 300, "kernel": 27, "std": 1.0, "schedule": "exponential", "rate": 0.01},
        "padding": "circular",
    },
    "deg_superres_mnist_T3": {**HALVE, "T": 3},
    "deg_superres_cifar_T3": {**HALVE, "T": 3},
    "deg_superres_extra_incremental_area_factor_2_T3": {**HALVE, "T": 3, "reduce": "average"},
    "deg_superres_generation_T6": {**HALVE, "T": 6},
    "deg_inpaint_celeba_incremental_T100_init1": {
        **{"name": "inpainting", "T": 100, "std": 0.2, "rate": 0.2},
        **{"centre_low": 63, "centre_high": 63},
    },
}


def load(name: str) -> dict[str, Tensor]:
    """A golden file as tensors."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_golden(name: str) -> None:
    """The released implementation's q_sample; its index i is severity i + 1. Large pictures store one corner only."""
    golden = load(name)
    degradation = degradations.build(GOLDEN_FILES[name], golden["x0"].shape[-1])
    t = golden["t_index"] + 1
    got = degradation(golden["x0"], t, degradation.draw(torch.zeros_like(t), 0))
    height, width = golden["x_t"].shape[-2:]
    torch.testing.assert_close(got[..., :height, :width], golden["x_t"], rtol=0, atol=TOLERANCES[name])


def test_golden_discrete_inpainting() -> None:
    """Random centre and 8-bit truncation: the levels agree to 0.01, and at a boundary a value may fall either way."""
    golden = load("deg_inpaint_mnist_random_T50_init11_discrete")
    spec = {"name": "inpainting", "T": 50, "std": 1.1, "rate": 0.1, "centre_low": -1, "centre_high": 31}
    degradation = degradations.build({**spec, "discrete": True}, 32)
    state = {"centre": torch.stack([golden["hole_row"], golden["hole_col"]], dim=1)}
    x0, t = golden["x0"], golden["t_index"] + 1
    levels = (degradation(x0, t, state) + 1) * 0.5 * 255
    torch.testing.assert_close(levels, golden["levels_before_truncation"], rtol=0, atol=0.01)
    difference = (observe(degradation, x0, t, state) - golden["x_t"]).abs()
    assert difference.max() <= LEVEL + 1e-4
    assert (difference > 1e-4).float().mean() < 0.02


VALID: dict[str, Spec] = {
    "blur": {"name": "blur", "T": 4, "kernel": 5, "std": 1.0},
    "inpainting": {"name": "inpainting", "T": 4, "std": 1.0, "rate": 0.1, "centre_low": 0, "centre_high": 15},
    "superresolution": {"name": "superresolution", "T": 2},
}


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("blur", {"name": "blurr"}, ["degradation 'blurr'", "did you mean 'blur'?", "superresolution"]),
        ("blur", {"kernal": 5}, ["parameter of degradation blur 'kernal'", "did you mean 'kernel'?"]),
        ("blur", {"size": 32}, ["parameter of degradation blur 'size'"]),
        ("blur", {"std": None}, ["parameter 'std' is missing"]),
        ("inpainting", {"centre_high": None}, ["parameter 'centre_high' is missing"]),
        ("superresolution", {"T": None}, ["parameter 'T' is missing"]),
        ("blur", {"kernel": 10}, ["kernel must be odd", "10"]),
        ("blur", {"kernel": 33}, ["kernel 33", "wider than 16 px"]),
        ("blur", {"kernel": 5.0}, ["kernel", "a whole number", "5.0"]),
        ("blur", {"kernel": 1}, ["kernel", "3…255", "1"]),
        ("blur", {"std": 0}, ["std", "0.01…1000", "0"]),
        ("blur", {"std": float("nan")}, ["std", "0.01…1000", "nan"]),
        ("blur", {"std": "1"}, ["std", "a number", "'1'"]),
        ("blur", {"rate": -0.1}, ["rate", "0…10", "-0.1"]),
        ("blur", {"T": 0}, ["T must be", "1…10000", "0"]),
        ("blur", {"T": True}, ["T must be", "True"]),
        ("blur", {"schedule": "linaer"}, ["schedule", "'linaer'", "did you mean 'linear'?"]),
        ("blur", {"padding": "zeros"}, ["padding", "'zeros'", "circular, reflect"]),
        ("blur", {"discrete": True}, ["blur", "discrete"]),
        ("inpainting", {"centre_low": 16}, ["centre_low 16", "centre_high 15"]),
        ("inpainting", {"centre_low": -33}, ["centre_low", "-32…32", "-33"]),
        ("inpainting", {"centre_high": 1.5}, ["centre_high", "1.5"]),
        ("superresolution", {"T": 5}, ["multiple of 32", "16 px allows T ≤ 4"]),
        ("superresolution", {"reduce": "averge"}, ["reduce", "'averge'", "did you mean 'average'?"]),
        ("superresolution", {"discrete": True}, ["superresolution", "discrete"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_parameters_are_named(name: str, change: Spec, told: list[str]) -> None:
    """One line that names the culprit, and the limit or the nearest valid choice. None takes a parameter away."""
    spec = {key: value for key, value in {**VALID[name], **change}.items() if value is not None}
    degradations.build(VALID[name], SIZE)
    with pytest.raises(ColdbenchError) as error:
        degradations.build(spec, SIZE)
    assert "\n" not in str(error.value)
    for words in told:
        assert words in str(error.value)


@pytest.mark.parametrize(("size", "limit"), [(28, 2), (15, 0), (48, 4)])
def test_superresolution_names_the_deepest_halving(size: int, limit: int) -> None:
    if limit:
        degradations.build({"name": "superresolution", "T": limit}, size)
    with pytest.raises(ColdbenchError, match=f"{size} px allows T ≤ {limit}"):
        degradations.build({"name": "superresolution", "T": limit + 1}, size)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize(
    ("x", "t", "told"),
    [
        (torch.zeros(2, 1, 16, 17), [1, 1], ["(N, C, 16, 16)", "(2, 1, 16, 17)"]),
        (torch.zeros(1, 16, 16), [1], ["(N, C, 16, 16)", "(1, 16, 16)"]),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), [1, 1], ["floating point", "uint8"]),
        (torch.zeros(2, 1, 16, 16), [1], ["int64 of shape (2,)", "(1,)"]),
        (torch.zeros(2, 1, 16, 16), [1.0, 1.0], ["int64", "float32"]),
    ],
    ids=["width", "no batch", "uint8", "count", "float t"],
)
def test_wrong_input_is_named(name: str, x: Tensor, t: list[float], told: list[str]) -> None:
    degradation = degradations.build(VALID[name] if name in VALID else {"name": name, **EXAMPLES[name][0]}, SIZE)
    state = degradation.draw(torch.arange(len(x)), 0)
    with pytest.raises(ColdbenchError) as error:
        degradation(x, torch.tensor(t), state)
    assert "\n" not in str(error.value)
    for words in told:
        assert words in str(error.value)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_severities_end_at_T(name: str) -> None:
    degradation = degradations.build({"name": name, **EXAMPLES[name][0]}, SIZE)
    x, T = torch.zeros(2, 1, SIZE, SIZE), degradation.T
    state = degradation.draw(torch.arange(2), 0)
    degradation(x, torch.tensor([0, T]), state)
    for low, high in [(0, T + 1), (-1, T)]:
        with pytest.raises(ColdbenchError, match=f"^severity must lie in 0…{T}, not {low}…{high}$"):
            degradation(x, torch.tensor([low, high]), state)
