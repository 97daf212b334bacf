"""Degradations: laws that hold for every registered one, the step-by-step recursion as oracle, errors.

The laws read what they need from the class itself: a new degradation with `test_params` is tested without a line here.
A step-by-step version of it may be added in `recursions.py`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recursions import RECURSIONS
from scipy import stats
from torch import Tensor

from coldbench import degradations
from coldbench.core.errors import ColdbenchError
from coldbench.degradations import DEGRADATIONS, Degradation, Drawn, initial_xt, network_input

SIZE = 16
LEVEL = 2 / 255

Spec = dict[str, Any]

CASES = [
    pytest.param({"name": name, **spec}, id="-".join([name, *map(str, spec.values())]))
    for name, kind in DEGRADATIONS.items()
    for spec in kind.test_params
]
every_example = pytest.mark.parametrize("spec", CASES)
every_name = pytest.mark.parametrize("name", [name for name, kind in DEGRADATIONS.items() if kind.test_params])


def built(spec: Spec, size: int = SIZE) -> Degradation:
    """The degradation; one that mixes in other pictures gets a white one, a black one and five of noise."""
    if "partner" not in spec:
        return degradations.build(spec, size)
    partners = np.random.default_rng(0).integers(0, 256, (7, 3, size, size), dtype=np.uint8)
    partners[0], partners[1] = 255, 0
    return degradations.build(spec, size, partners)


def first(name: str) -> Degradation:
    """The first example of a degradation."""
    return built({"name": name, **DEGRADATIONS[name].test_params[0]})


def noise(n: int, channels: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Uniform pictures in [-1, 1], float64."""
    return 2 * torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)).double() - 1


def channels_of(degradation: Degradation) -> list[int]:
    """The numbers of channels it takes."""
    return [3] if degradation.needs_colour else [1, 3]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_degradation_is_covered(name: str) -> None:
    assert DEGRADATIONS[name].test_params, (
        f"{name} has no `test_params` (parameters at {SIZE} px): no law is tested with it"
    )


def hold_laws(degradation: Degradation, x: Tensor, t: Tensor, indices: Tensor, seed: int) -> None:
    """Identity at 0, shape, dtype, device, range, mean, linearity, and one image at a time, for one batch."""
    exact = {"rtol": 0, "atol": 5e-6 if x.dtype == torch.float32 else 1e-12}
    drawn, before = degradation.draw(indices, seed), x.clone()
    states_before = {key: value.clone() for key, value in drawn.items()}
    y = degradation(x, t, drawn)
    assert torch.equal(x, before), "the input was changed"
    for key, value in drawn.items():
        assert torch.equal(value, states_before[key]), f"drawn '{key}' was changed"
        assert value.device == x.device
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    assert y.isfinite().all()
    assert y.abs().max() <= degradation.bound + 1e-5
    assert torch.equal(y[t == 0], x[t == 0])
    assert torch.equal(degradation(x, torch.zeros_like(t), drawn), x)
    assert torch.equal(degradation(x, t, drawn), y), "not deterministic"
    for i in range(len(x)):  # the same alone, with its drawn drawn alone
        alone = degradation(x[[i]], t[[i]], degradation.draw(indices[[i]], seed))
        torch.testing.assert_close(alone, y[[i]], **exact)
    if degradation.keeps_mean:  # the tables are float32
        torch.testing.assert_close(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0, atol=5e-6)
    if degradation.linear:
        other = x.flip(0, 2)
        mixed = degradation(0.3 * x - 0.6 * other, t, drawn)
        torch.testing.assert_close(mixed, 0.3 * y - 0.6 * degradation(other, t, drawn), **exact)


@every_example
@settings(deadline=None, max_examples=20)
@given(data=st.data(), picture=st.integers(0, 2**32), seed=st.integers(0, 2**63 - 1), black_and_white=st.booleans())
def test_laws(spec: Spec, data: st.DataObject, picture: int, seed: int, black_and_white: bool) -> None:
    """For any batch of severities and image numbers, of one channel and of three, in both precisions."""
    degradation = built(spec)
    assert isinstance(degradation, Degradation)
    severities = data.draw(st.lists(st.integers(0, degradation.T), min_size=1, max_size=4), label="t")
    some = st.lists(st.integers(0, 10**6), min_size=len(severities), max_size=len(severities), unique=True)
    t, indices = torch.tensor(severities), torch.tensor(data.draw(some, label="indices"))
    for channels in channels_of(degradation):
        x = noise(len(t), channels, seed=picture)
        x = x.sign() if black_and_white else x  # reaches the limits of the range
        for dtype in (torch.float64, torch.float32):
            hold_laws(degradation, x.to(dtype), t, indices, seed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@every_example
def test_laws_on_the_gpu(spec: Spec) -> None:
    """The same on a GPU, where the draw is the same as on the CPU and so is the picture."""
    degradation = built(spec)
    x, t, indices = noise(4, 3).float(), torch.arange(4) * degradation.T // 3, torch.tensor([3, 0, 2**40, 77])
    hold_laws(degradation, x.cuda(), t.cuda(), indices.cuda(), 5)
    here, there = degradation.draw(indices, 5), degradation.draw(indices.cuda(), 5)
    torch.testing.assert_close({key: value.cpu() for key, value in there.items()}, here, rtol=0, atol=1e-12)
    got = degradation(x.cuda(), t.cuda(), {key: value.cuda() for key, value in here.items()})
    torch.testing.assert_close(got.cpu(), degradation(x, t, here), rtol=0, atol=1e-5)


@every_example
def test_every_severity_degrades(spec: Spec) -> None:
    """No two neighbouring severities do the same, and a batch may hold all of them, or no image at all."""
    degradation = built(spec)
    t, images = torch.arange(degradation.T + 1), torch.arange(20) * 1000
    idle = 1 if spec.get("schedule") == "shrinking" else 0  # its first step reduces to the size that is there
    x = noise(1, 3).expand(len(t), -1, -1, -1)
    change = torch.zeros(degradation.T)
    for image in images:
        y = degradation(x, t, degradation.draw(image.expand(len(t)), 0))
        change = torch.maximum(change, (y[1:] - y[:-1]).abs().amax(dim=(1, 2, 3)))
    assert (change[idle:] > 1e-4).all()
    none = torch.zeros(0, dtype=torch.int64)
    assert degradation(x[:0], none, degradation.draw(none, 0)).shape == (0, 3, SIZE, SIZE)


@every_example
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**63 - 1), order=st.permutations(range(50)), cut=st.integers(1, 50))
def test_state_belongs_to_the_image(spec: Spec, seed: int, order: list[int], cut: int) -> None:
    """A draw depends on the seed and the image's index, never on the batch or its order."""
    degradation = built(spec)
    every = degradation.draw(torch.arange(50), seed)
    chosen = torch.tensor(order[:cut])
    for key, value in degradation.draw(chosen, seed).items():
        assert torch.equal(value, every[key][chosen])


@every_example
def test_eight_bits_where_declared(spec: Spec) -> None:
    """Training inputs and x_T are 8-bit values where the degradation says so, and untouched where it does not."""
    degradation = built(spec)
    t = torch.arange(degradation.T + 1)
    x = noise(len(t), 3).float()
    drawn = degradation.draw(t, 3)
    most = torch.full_like(t, degradation.T)
    shown = network_input(degradation, x, t, drawn), degradation(x, t, drawn), degradation.quantized
    started = initial_xt(degradation, x, drawn), degradation(x, most, drawn), degradation.quantized_start
    for got, exact, discrete in (shown, started):
        if not discrete:
            assert torch.equal(got, exact)
            continue
        levels = (got.double() + 1) / LEVEL
        assert (levels - levels.round()).abs().max() < 1e-3
        lost = (exact.double() + 1) / LEVEL - levels.round()
        low, high = (0, 1) if degradation.rounding == "truncate" else (-0.5, 0.5)
        assert low - 1e-3 < lost.min()
        assert lost.max() < high + 1e-3
        assert high - low - 0.1 < lost.max() - lost.min()


@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
def test_eight_bits_of_what_is_8_bit(rounding: str) -> None:
    """Of the 256 exact values truncation in float32 lowers 63 by one level; to the nearest keeps them all."""
    spec = {"name": "inpainting", "T": 2, "std": 1.0, "rate": 0.1, "centre_low": 0, "centre_high": 0, "quantized": True}
    degradation = built({**spec, "rounding": rounding})
    x = (torch.arange(256, dtype=torch.float32) / 255 * 2 - 1).reshape(1, 1, SIZE, SIZE)
    t = torch.zeros(1, dtype=torch.int64)
    lower = (x - network_input(degradation, x, t, degradation.draw(t, 0))) / LEVEL
    assert (lower - lower.round()).abs().max() < 1e-3
    assert lower.round().unique(return_counts=True)[1].tolist() == ([193, 63] if rounding == "truncate" else [256])


@every_example
def test_agrees_with_the_recursion(spec: Spec) -> None:
    """At all severities, of one channel and of three, in float32."""
    if spec["name"] not in RECURSIONS:
        pytest.skip(f"recursions.py has none for {spec['name']}")
    degradation = built(spec)
    drawn = degradation.draw(torch.tensor([5, 0, 77]), 1)
    for channels in channels_of(degradation):
        x = noise(3, channels, seed=channels)
        for t in range(degradation.T + 1):
            got = degradation(x.float(), torch.full((3,), t), drawn)
            expected = RECURSIONS[spec["name"]](degradation, x, t, drawn)
            torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)


def agree(spec: Spec, size: int) -> Degradation:
    """The degradation of the spec, after a comparison with its recursion at the last severities."""
    degradation = built(spec, size)
    drawn = degradation.draw(torch.tensor([3]), size)
    x = noise(1, 1, size, seed=size)
    for t in {degradation.T, max(degradation.T - 1, 0)}:
        got = degradation(x.float(), torch.tensor([t]), drawn)
        expected = RECURSIONS[spec["name"]](degradation, x, t, drawn)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)
    return degradation


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(4, 20),
    T=st.integers(1, 6),
    reach=st.integers(0, 9),
    widening=st.integers(0, 2),
    std=st.floats(0.2, 9),
    schedule=st.sampled_from(["constant", "linear", "exponential"]),
    rate=st.floats(0, 0.5),
    padding=st.sampled_from(["circular", "reflect"]),
    quantized=st.booleans(),
)
def test_any_blur_agrees_with_the_recursion(size: int, reach: int, widening: int, **rest: Any) -> None:
    """Over the whole space of parameters: borders, odd sizes and kernels as wide as the image included."""
    widest = size - 1 - widening * (rest["T"] - 1)
    if widest < 0:
        widening, widest = 0, size - 1
    agree({"name": "blur", "kernel": 2 * min(reach, widest) + 1, "kernel_rate": 2 * widening, **rest}, size)


@settings(deadline=None, max_examples=15)
@given(
    size=st.integers(2, 16),
    T=st.integers(1, 4),
    std=st.floats(0.2, 2),
    schedule=st.sampled_from(["constant", "linear", "exponential"]),
    rate=st.floats(0, 0.2),
    padding=st.sampled_from(["circular", "reflect"]),
)
def test_any_single_blur_agrees_with_one_wide_convolution(size: int, **rest: Any) -> None:
    """Composition by summed variances, with Gaussians wider than the picture."""
    agree({"name": "blur", "kernel": 3, "composition": "kernel", **rest}, size)


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(2, 24),
    limits=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    T=st.integers(1, 12),
    std=st.floats(0.01, 30),
    rate=st.floats(0, 5),
    width=st.sampled_from(["std", "variance"]),
    fill=st.floats(-1, 1),
)
def test_any_inpainting_agrees_with_the_recursion(size: int, limits: tuple[float, float], **rest: Any) -> None:
    """Centres anywhere up to twice the picture's side away."""
    low, high = sorted(round(share * size) for share in limits)
    agree({"name": "inpainting", "centre_low": low, "centre_high": high, **rest}, size)


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(2, 24),
    T=st.integers(1, 12),
    std=st.floats(0.01, 30),
    rate=st.floats(0, 5),
    order=st.sampled_from(["inwards", "outwards"]),
)
def test_any_inpainting_generation_agrees_with_the_recursion(size: int, **rest: Any) -> None:
    """At odd sides the centre lies between pixels."""
    agree({"name": "inpainting_generation", **rest}, size)


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(2, 40),
    depth=st.integers(0, 11),
    schedule=st.sampled_from(["halving", "shrinking"]),
    reduce=st.sampled_from(["average", "bicubic", "bilinear"]),
)
def test_any_superresolution_agrees_with_the_recursion(size: int, depth: int, schedule: str, reduce: str) -> None:
    """Odd sides and reductions to one pixel included; the declared bound and mean as well."""
    most = size.bit_length() - 1 if schedule == "halving" else size
    spec = {"name": "superresolution", "T": 1 + depth % most, "schedule": schedule, "reduce": reduce}
    degradation = agree(spec, size)
    t, x = torch.full((2,), degradation.T), noise(2, 1, size).sign()
    y = degradation(x, t, {})
    assert y.abs().max() <= degradation.bound + 1e-5
    if degradation.keeps_mean:
        torch.testing.assert_close(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0, atol=5e-6)


def test_inpainting_centres() -> None:
    """The centre is uniform over the whole declared square, rows apart from columns, and another one per seed."""
    spec = {"name": "inpainting", "T": 2, "std": 1.0, "rate": 0.1, "centre_low": -1, "centre_high": 2}
    centre = built(spec).draw(torch.arange(4000), 3)["centre"]
    places = ((centre + 1) * torch.tensor([4, 1])).sum(dim=1).bincount(minlength=16)
    assert places.shape == (16,)
    assert places.min() > 150, "expected 250 of 4000 at each of the 16 places"
    assert not torch.equal(centre, built(spec).draw(torch.arange(4000), 4)["centre"])


def test_drawn_colours_and_noise() -> None:
    """Colours are uniform between the limits, channel by channel; noise is standard normal, pixel by pixel."""
    spec = {"name": "inpainting_generation", "T": 2, "std": 1.0, "rate": 0.1, "colour_low": -0.25, "colour_high": 0.75}
    colour = built(spec).draw(torch.arange(2000), 3)["colour"]
    for channel in range(3):
        assert stats.kstest(colour[:, channel].numpy(), "uniform", (-0.25, 1.0)).pvalue > 1e-3
    assert np.abs(np.corrcoef(colour.T.numpy()) - np.eye(3)).max() < 0.1
    z = first("noise").draw(torch.arange(40), 3)["z"]
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert z.flatten().unique().numel() > 0.98 * z.numel(), "some pixels share their noise"


def test_drawn_partners() -> None:
    """Every partner is as likely as any other, seeds pair differently, and a grey one has three equal channels."""
    spec = {"name": "animorphosis", "T": 3, "partner": "photos"}
    pictures = np.arange(5 * 256, dtype=np.uint32).reshape(5, 1, SIZE, SIZE) // 256 * 50
    degradation = degradations.build(spec, SIZE, pictures.astype(np.uint8))
    z = degradation.draw(torch.arange(1000), 3)["z"]
    assert z.shape == (1000, 3, SIZE, SIZE)
    assert (z == z[:, :1, :1, :1]).all(), "not one of the pictures, or its channels differ"
    levels, counts = ((z[:, 0, 0, 0] + 1) / LEVEL).round().unique(return_counts=True)
    assert levels.tolist() == [0, 50, 100, 150, 200]
    assert counts.min() > 150, "expected 200 of 1000 of each of the 5 pictures"
    assert not torch.equal(z, degradation.draw(torch.arange(1000), 4)["z"])


VALID: dict[str, Spec] = {
    "animorphosis": {"T": 4, "partner": "photos"},
    "blur": {"T": 4, "kernel": 5, "std": 1.0},
    "decolorization": {"T": 4},
    "inpainting": {"T": 4, "std": 1.0, "rate": 0.1, "centre_low": 0, "centre_high": 15},
    "inpainting_generation": {"T": 4, "std": 1.0, "rate": 0.1},
    "noise": {"T": 4},
    "snow": {"T": 4, "level": 3},
    "superresolution": {"T": 2},
}


def refused(spec: Spec, size: int, told: list[str]) -> None:
    """Building fails with one line that says all of `told`."""
    with pytest.raises(ColdbenchError) as error:
        built(spec, size)
    assert "\n" not in str(error.value)
    for words in told:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("blur", {"name": "blurr"}, ["degradation 'blurr'", "did you mean 'blur'?", "superresolution"]),
        ("blur", {"name": "inpainting generation"}, ["did you mean 'inpainting_generation'?"]),
        ("blur", {"name": ["blur"]}, ["degradation '['blur']'", "superresolution"]),
        ("blur", {"name": None}, ["degradation 'None'", "superresolution"]),
        ("blur", {"kernal": 5}, ["parameter of degradation blur 'kernal'", "did you mean 'kernel'?"]),
        ("blur", {"size": 32}, ["parameter of degradation blur 'size'"]),
        ("blur", {"matrices": 1}, ["parameter of degradation blur 'matrices'"]),
        ("animorphosis", {"images": None, "imags": 1}, ["parameter of degradation animorphosis 'imags'", "partner"]),
        ("noise", {"partner": "x"}, ["parameter of degradation noise 'partner'"]),
        ("superresolution", {"quantized": True}, ["parameter of degradation superresolution 'quantized'"]),
        ("decolorization", {"total_remove": True}, ["parameter of degradation decolorization 'total_remove'"]),
        ("blur", {"std": None}, ["parameter 'std' is missing"]),
        ("inpainting", {"centre_high": None}, ["parameter 'centre_high' is missing"]),
        ("superresolution", {"T": None}, ["parameter 'T' is missing"]),
        ("snow", {"level": None}, ["parameter 'level' is missing"]),
        ("animorphosis", {"partner": None}, ["parameter 'partner' is missing"]),
        ("blur", {"kernel": 10}, ["kernel must be odd", "10"]),
        ("blur", {"kernel_rate": 3}, ["kernel_rate must be even", "3"]),
        ("blur", {"kernel": 33}, ["kernel 33", "wider than 16 px", "up to 31"]),
        ("blur", {"kernel": 27, "kernel_rate": 2}, ["kernel 33", "wider than 16 px", "up to 31"]),
        ("blur", {"schedule": "linaer"}, ["schedule of degradation blur 'linaer'", "did you mean 'linear'?"]),
        ("blur", {"padding": "zeros"}, ["padding of degradation blur 'zeros'", "circular, reflect"]),
        ("blur", {"composition": "kernels"}, ["composition", "did you mean 'kernel'?"]),
        ("blur", {"rounding": "floor"}, ["rounding of degradation blur 'floor'", "nearest, truncate"]),
        ("blur", {"quantized": 1}, ["quantized must be true or false", "1"]),
        ("inpainting", {"quantized": "yes"}, ["quantized must be true or false", "'yes'"]),
        ("inpainting", {"rounding": "nearst"}, ["rounding of degradation inpainting", "did you mean 'nearest'?"]),
        ("inpainting", {"width": "var"}, ["width of degradation inpainting 'var'", "std, variance"]),
        ("inpainting", {"centre_low": 16}, ["centre_low 16", "centre_high 15"]),
        ("inpainting_generation", {"order": "inward"}, ["order", "did you mean 'inwards'?"]),
        ("inpainting_generation", {"colour_low": 0.6}, ["colour_low 0.6", "colour_high 0.5"]),
        ("superresolution", {"T": 5}, ["16 px", "4 times by halving", "T ≤ 4"]),
        ("superresolution", {"T": 17, "schedule": "shrinking"}, ["16 px", "16 times by shrinking", "T ≤ 16"]),
        ("superresolution", {"schedule": "halfing"}, ["schedule", "did you mean 'halving'?"]),
        ("superresolution", {"reduce": "averge"}, ["reduce", "'averge'", "did you mean 'average'?"]),
        ("decolorization", {"schedule": "cosine"}, ["schedule of degradation decolorization 'cosine'", "linear"]),
        ("decolorization", {"grey": "lumma"}, ["grey", "did you mean 'luma'?"]),
        ("decolorization", {"total": 0}, ["total must be true or false", "0"]),
        ("snow", {"level": 5}, ["level must be a whole number in 1…4", "5"]),
        ("snow", {"level": "3"}, ["level must be a whole number in 1…4", "'3'"]),
        ("snow", {"level": True}, ["level must be a whole number in 1…4", "True"]),
        ("snow", {"level": [3]}, ["level must be a whole number in 1…4", "[3]"]),
        ("snow", {"crop": "center"}, ["crop", "did you mean 'centre'?"]),
        ("snow", {"zoom": "cubic"}, ["zoom of degradation snow 'cubic'", "linear, spline"]),
        ("snow", {"fix_brightness": 1}, ["fix_brightness must be true or false"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_parameters_are_named(name: str, change: Spec, told: list[str]) -> None:
    """One line that names the culprit, and the limit or the nearest valid choice. None takes a parameter away."""
    spec = {"name": name, **VALID[name]}
    built(spec)
    refused({key: value for key, value in {**spec, **change}.items() if value is not None}, SIZE, told)


WIDE = {"centre_low": -400, "centre_high": 400}
LIMITS: list[tuple[str, str, float, float, Spec]] = [
    *((name, "T", 1, 10_000, {}) for name in VALID if name != "superresolution"),
    ("blur", "kernel", 1, 255, {}),
    ("blur", "kernel_rate", 0, 64, {}),
    ("blur", "std", 0.01, 1000.0, {}),
    ("blur", "rate", 0.0, 10.0, {}),
    ("decolorization", "keep", 0.0, 1.0, {}),
    ("inpainting", "std", 0.01, 1000.0, {}),
    ("inpainting", "rate", 0.0, 100.0, {}),
    ("inpainting", "fill", -1.0, 1.0, {}),
    ("inpainting", "centre_low", -400, 400, WIDE),
    ("inpainting", "centre_high", -400, 400, WIDE),
    ("inpainting_generation", "std", 0.01, 1000.0, {}),
    ("inpainting_generation", "rate", 0.0, 100.0, {}),
    ("inpainting_generation", "colour_low", -1.0, 1.0, {"colour_high": 1.0}),
    ("inpainting_generation", "colour_high", -1.0, 1.0, {"colour_low": -1.0}),
    ("snow", "shared", 1, 10**9, {}),
]


@pytest.mark.parametrize(("name", "key", "low", "high", "extra"), LIMITS, ids=lambda value: str(value))
def test_every_limit_is_named(name: str, key: str, low: float, high: float, extra: Spec) -> None:
    """Both ends are allowed; what lies beyond is not, nor anything but a number (a whole one if declared so)."""
    spec = {"name": name, **VALID[name], **extra}
    whole = isinstance(low, int)
    limits = f"{key} must be a {'whole ' if whole else ''}number"
    limits += "" if key.startswith("centre") else f" in {low:g}…{high:g}"  # those of the centre depend on the size
    for value in (low, high):
        built({**spec, key: value}, 200)
    beyond = [low - 1, high + 1] if whole else [low - 0.001, high * 1.001]
    for value in [*beyond, math.nan, math.inf, True, "1", [1], *([low + 0.5] if whole else [])]:
        refused({**spec, key: value}, 200, [limits, repr(value)])


@pytest.mark.parametrize("name", VALID)
def test_sizes_are_limited(name: str) -> None:
    spec = {"name": name, **VALID[name]}
    for size in (1, 0, -16, 4097, 16.0, True):
        with pytest.raises(ColdbenchError, match=re.escape("size must be a whole number in 2…4096")) as error:
            degradations.build(spec, size)
        assert "\n" not in str(error.value)
    degradations.build({"name": "noise", "T": 1}, 2)
    degradations.build({"name": "noise", "T": 1}, 4096)


@pytest.mark.parametrize(
    ("schedule", "size", "limit"),
    [("halving", 28, 4), ("halving", 31, 4), ("halving", 32, 5), ("halving", 3, 1), ("shrinking", 5, 5)],
)
def test_superresolution_names_the_deepest_reduction(schedule: str, size: int, limit: int) -> None:
    """One pixel is the end."""
    spec = {"name": "superresolution", "schedule": schedule}
    assert built({**spec, "T": limit}, size).sides()[-1] == 1
    refused({**spec, "T": limit + 1}, size, [f"{size} px", f"T ≤ {limit}"])
    built({**spec, "schedule": "shrinking", "T": 4095}, 4096)
    for T in (0, 4096):
        refused({**spec, "schedule": "shrinking", "T": T}, 4096, ["T must be a whole number in 1…4095", str(T)])


def test_partners_of_another_size_or_none_are_named() -> None:
    spec = {"name": "animorphosis", "T": 2, "partner": "photos"}
    for shape in ((2, 3, 32, 32), (2, 2, 16, 16), (0, 3, 16, 16)):
        with pytest.raises(ColdbenchError, match=rf"photos must be uint8 .* 16, 16\), not uint8 \({shape[0]}"):
            degradations.build(spec, SIZE, np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ColdbenchError, match="partner must be a name, not 3"):
        degradations.build({**spec, "partner": 3}, SIZE)
    with pytest.raises(ColdbenchError, match="the images of photos are missing"):
        degradations.build(spec, SIZE).draw(torch.arange(2), 0)


GOOD = torch.zeros(2, 3, SIZE, SIZE)


def spoilt(value: float) -> Tensor:
    """A batch with one wrong pixel."""
    x = GOOD.clone()
    x[1, 2, 3, 4] = value
    return x


@every_name
@pytest.mark.parametrize(
    ("x", "t", "told"),
    [
        pytest.param(GOOD[..., :15], [1, 1], ["(N, C, 16, 16)", "(2, 3, 16, 15)"], id="not square"),
        pytest.param(GOOD[..., :1, :1], [1, 1], ["(N, C, 16, 16)", "(2, 3, 1, 1)"], id="1 x 1"),
        pytest.param(torch.zeros(2, 3, 32, 32), [1, 1], ["(N, C, 16, 16)", "(2, 3, 32, 32)"], id="32 px"),
        pytest.param(GOOD[0], [1], ["(N, C, 16, 16)", "(3, 16, 16)"], id="no batch"),
        pytest.param(GOOD[:, :2], [1, 1], ["1 or 3 channels", "(2, 2, 16, 16)"], id="2 channels"),
        pytest.param(torch.zeros(2, 4, SIZE, SIZE), [1, 1], ["1 or 3 channels", "(2, 4, 16, 16)"], id="4 channels"),
        pytest.param(GOOD.to(torch.uint8), [1, 1], ["floating point in [-1, 1]", "uint8"], id="uint8"),
        pytest.param(GOOD, [1], ["int64 of shape (2,)", "(1,)"], id="one t for two"),
        pytest.param(GOOD, [[1], [1]], ["int64 of shape (2,)", "(2, 1)"], id="t with two axes"),
        pytest.param(GOOD, [1.0, 1.0], ["int64", "float32"], id="float t"),
        pytest.param(GOOD, [True, True], ["int64", "bool"], id="bool t"),
        pytest.param(spoilt(math.nan), [0, 0], ["finite, nominally in [-1, 1]"], id="NaN"),
        pytest.param(spoilt(math.inf), [0, 0], ["finite, nominally in [-1, 1]"], id="infinity"),
        pytest.param(spoilt(-math.inf), [0, 0], ["finite, nominally in [-1, 1]"], id="minus infinity"),
    ],
)
def test_wrong_input_is_named(name: str, x: Tensor, t: list[Any], told: list[str]) -> None:
    """One line, whatever the degradation; at severity 0 as well."""
    degradation = first(name)
    drawn = degradation.draw(torch.arange(2), 0)
    with pytest.raises(ColdbenchError) as error:
        degradation(x, torch.tensor(t), drawn)
    assert "\n" not in str(error.value)
    for words in told:
        assert words in str(error.value)


@every_name
def test_wrong_batches_are_named(name: str) -> None:
    """Severities end at T, a draw serves its own batch, and colour is asked for where it is needed."""
    degradation = first(name)
    x, top, drawn = GOOD, degradation.T, degradation.draw(torch.arange(2), 0)
    degradation(x, torch.tensor([0, top]), drawn)
    for low, high in [(0, top + 1), (-1, top)]:
        with pytest.raises(ColdbenchError, match=f"^severity must lie in 0…{top}, not {low}…{high}$"):
            degradation(x, torch.tensor([low, high]), drawn)
    if drawn:
        for n in (1, 3):
            with pytest.raises(ColdbenchError, match=rf"^drawn '\w+' was drawn for {n} images, not 2$"):
                degradation(x, torch.tensor([0, top]), degradation.draw(torch.arange(n), 0))
    if degradation.needs_colour:
        with pytest.raises(ColdbenchError, match=r"^degradation \w+ needs images of 3 channels, not 1$"):
            degradation(x[:, :1], torch.tensor([0, top]), drawn)


def test_a_class_of_ones_own_is_held_to_the_laws() -> None:
    """The laws notice a degradation that does not do as its properties say."""

    class Wrong(Degradation):
        size, T = SIZE, 3
        claims: frozenset[str] = frozenset()
        linear = property(lambda self: "linear" in self.claims)
        keeps_mean = property(lambda self: "keeps_mean" in self.claims)
        bound = property(lambda self: 0.5 if "bound" in self.claims else 2.0)

        def draw(self, indices: Tensor, seed: int) -> Drawn:
            return {"z": torch.arange(len(indices)) if "drawn" in self.claims else indices}

        def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
            if "in place" in self.claims:
                x0 += 0.1
            return x0.abs() + 1e-6 * drawn["z"][:, None, None, None]

    batch = noise(3, 1), torch.tensor([1, 0, 3]), torch.tensor([5, 6, 7])
    degradation = Wrong()
    hold_laws(degradation, *batch, 0)
    for claim in ("linear", "keeps_mean", "bound", "drawn", "in place"):
        degradation.claims = frozenset([claim])
        with pytest.raises(AssertionError):
            hold_laws(degradation, batch[0].clone(), *batch[1:], 0)


@every_example
def test_a_network_in_lower_precision_leaves_degradations_exact(spec: Spec) -> None:
    degradation = built(spec)
    x = 2 * torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) - 1
    t, drawn = torch.tensor([1, degradation.T]), degradation.draw(torch.arange(2), 0)
    exact = degradation(x, t, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(degradation(x, t, drawn), exact)
