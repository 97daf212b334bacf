"""Degradations: laws of every registered one, the step-by-step recursion as oracle, random draws, refusals.

The laws read what they need from the class, so a new degradation with `test_params` is tested without a line here. Its
step-by-step version may be added in `recursions.py`.
"""

from __future__ import annotations

import datetime
import math
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
every_case = pytest.mark.parametrize("spec", CASES)
every_name = pytest.mark.parametrize("name", [name for name, kind in DEGRADATIONS.items() if kind.test_params])


def built(spec: Spec, size: int = SIZE) -> Degradation:
    """The degradation; one that mixes in other images gets a white one, a black one and five of noise."""
    if "partner" not in spec:
        return degradations.build(spec, size)
    partners = np.random.default_rng(0).integers(0, 256, (7, 3, size, size), dtype=np.uint8)
    partners[0], partners[1] = 255, 0
    return degradations.build(spec, size, partners)


def first(name: str) -> Degradation:
    """The degradation with the first of its `test_params`."""
    return built({"name": name, **DEGRADATIONS[name].test_params[0]})


def noise(n: int, channels: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Uniform images in [-1, 1], float64."""
    return 2 * torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)).double() - 1


def channels_of(degradation: Degradation) -> list[int]:
    return [3] if degradation.needs_colour else [1, 3]


# Laws


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_degradation_is_covered(name: str) -> None:
    assert DEGRADATIONS[name].test_params, f"{name} has no `test_params` for {SIZE} px, so no law is tested with it"


def check_laws(degradation: Degradation, x: Tensor, t: Tensor, indices: Tensor, seed: int) -> None:
    """Identity at 0, shape, dtype, device, range, mean, linearity and independence of the batch, for one batch."""
    exact = {"rtol": 0, "atol": 5e-6 if x.dtype == torch.float32 else 1e-12}
    drawn, before = degradation.draw(indices, seed), x.clone()
    drawn_before = {key: value.clone() for key, value in drawn.items()}
    y = degradation(x, t, drawn)
    assert torch.equal(x, before), "the input was changed"
    for key, value in drawn.items():
        assert torch.equal(value, drawn_before[key]), f"drawn '{key}' was changed"
        assert value.device == x.device
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    assert y.isfinite().all()
    assert y.abs().max() <= degradation.bound + 1e-5
    assert torch.equal(y[t == 0], x[t == 0])
    assert torch.equal(degradation(x, torch.zeros_like(t), drawn), x)
    assert torch.equal(degradation(x, t, drawn), y), "not deterministic"
    for i in range(len(x)):
        alone = degradation(x[[i]], t[[i]], degradation.draw(indices[[i]], seed))
        torch.testing.assert_close(alone, y[[i]], **exact)
    if degradation.keeps_mean:  # the operators are float32
        torch.testing.assert_close(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0, atol=5e-6)
    if degradation.linear:
        other = x.flip(0, 2)
        mixed = degradation(0.3 * x - 0.6 * other, t, drawn)
        torch.testing.assert_close(mixed, 0.3 * y - 0.6 * degradation(other, t, drawn), **exact)


@every_case
@settings(deadline=None, max_examples=20)
@given(data=st.data(), image=st.integers(0, 2**32), seed=st.integers(0, 2**63 - 1), black_and_white=st.booleans())
def test_laws_hold(spec: Spec, data: st.DataObject, image: int, seed: int, black_and_white: bool) -> None:
    """For any batch of severities and image indices, for one channel and three, in both precisions."""
    degradation = built(spec)
    severities = data.draw(st.lists(st.integers(0, degradation.T), min_size=1, max_size=4), label="t")
    some = st.lists(st.integers(0, 10**6), min_size=len(severities), max_size=len(severities), unique=True)
    t, indices = torch.tensor(severities), torch.tensor(data.draw(some, label="indices"))
    for channels in channels_of(degradation):
        x = noise(len(t), channels, seed=image)
        x = x.sign() if black_and_white else x  # reaches the limits of the range
        for dtype in (torch.float64, torch.float32):
            check_laws(degradation, x.to(dtype), t, indices, seed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@every_case
def test_laws_hold_on_a_gpu_with_the_same_draws_as_on_a_cpu(spec: Spec) -> None:
    degradation = built(spec)
    x, t, indices = noise(4, 3).float(), torch.arange(4) * degradation.T // 3, torch.tensor([3, 0, 2**40, 77])
    check_laws(degradation, x.cuda(), t.cuda(), indices.cuda(), 5)
    cpu, gpu = degradation.draw(indices, 5), degradation.draw(indices.cuda(), 5)
    torch.testing.assert_close({key: value.cpu() for key, value in gpu.items()}, cpu, rtol=0, atol=1e-12)
    y = degradation(x.cuda(), t.cuda(), {key: value.cuda() for key, value in cpu.items()})
    torch.testing.assert_close(y.cpu(), degradation(x, t, cpu), rtol=0, atol=1e-5)


def test_laws_notice_a_false_declaration() -> None:
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
    check_laws(degradation, *batch, 0)
    for claim in ("linear", "keeps_mean", "bound", "drawn", "in place"):
        degradation.claims = frozenset([claim])
        with pytest.raises(AssertionError):
            check_laws(degradation, batch[0].clone(), *batch[1:], 0)


@every_case
def test_neighbouring_severities_differ(spec: Spec) -> None:
    """And a batch may hold all severities, or no image."""
    degradation = built(spec)
    t, images = torch.arange(degradation.T + 1), torch.arange(20) * 1000
    idle = 1 if spec.get("schedule") == "shrinking" else 0  # its first step reduces to the same size
    x = noise(1, 3).expand(len(t), -1, -1, -1)
    change = torch.zeros(degradation.T)
    for image in images:
        y = degradation(x, t, degradation.draw(image.expand(len(t)), 0))
        change = torch.maximum(change, (y[1:] - y[:-1]).abs().amax(dim=(1, 2, 3)))
    assert (change[idle:] > 1e-4).all()
    none = torch.zeros(0, dtype=torch.int64)
    assert degradation(x[:0], none, degradation.draw(none, 0)).shape == (0, 3, SIZE, SIZE)


@every_case
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**63 - 1), order=st.permutations(range(50)), cut=st.integers(1, 50))
def test_a_draw_depends_on_seed_and_image_alone(spec: Spec, seed: int, order: list[int], cut: int) -> None:
    degradation = built(spec)
    whole = degradation.draw(torch.arange(50), seed)
    indices = torch.tensor(order[:cut])
    for key, value in degradation.draw(indices, seed).items():
        assert torch.equal(value, whole[key][indices])


@every_case
def test_a_network_in_lower_precision_leaves_degradations_exact(spec: Spec) -> None:
    degradation, x = built(spec), noise(2, 3, seed=1).float()
    t, drawn = torch.tensor([1, degradation.T]), degradation.draw(torch.arange(2), 0)
    exact = degradation(x, t, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(degradation(x, t, drawn), exact)


@every_case
def test_network_input_and_initial_xt_are_8_bit_where_declared(spec: Spec) -> None:
    degradation = built(spec)
    t = torch.arange(degradation.T + 1)
    x, drawn = noise(len(t), 3).float(), degradation.draw(t, 3)
    last = torch.full_like(t, degradation.T)
    for rounded, exact, quantized in (
        (network_input(degradation, x, t, drawn), degradation(x, t, drawn), degradation.quantized),
        (initial_xt(degradation, x, drawn), degradation(x, last, drawn), degradation.quantized_start),
    ):
        if not quantized:
            assert torch.equal(rounded, exact)
            continue
        levels = (rounded.double() + 1) / LEVEL
        assert (levels - levels.round()).abs().max() < 1e-3
        lost = (exact.double() + 1) / LEVEL - levels.round()
        low, high = (0, 1) if degradation.rounding == "truncate" else (-0.5, 0.5)
        assert low - 1e-3 < lost.min()
        assert lost.max() < high + 1e-3
        assert high - low - 0.1 < lost.max() - lost.min()


@pytest.mark.parametrize(("rounding", "counts"), [("truncate", [193, 63]), ("nearest", [256])])
def test_truncation_lowers_63_of_the_256_exact_levels(rounding: str, counts: list[int]) -> None:
    spec = {"name": "inpainting", "T": 2, "std": 1.0, "rate": 0.1, "centre_low": 0, "centre_high": 0, "quantized": True}
    degradation = built({**spec, "rounding": rounding})
    x = (torch.arange(256, dtype=torch.float32) / 255 * 2 - 1).reshape(1, 1, SIZE, SIZE)
    t = torch.zeros(1, dtype=torch.int64)
    lower = (x - network_input(degradation, x, t, degradation.draw(t, 0))) / LEVEL
    assert (lower - lower.round()).abs().max() < 1e-3
    assert lower.round().unique(return_counts=True)[1].tolist() == counts


def test_equal_parameters_share_one_table_of_operators() -> None:
    """Whole numbers and floats are equal, and the images of animorphosis do not count."""
    cpu, spec = torch.device("cpu"), {"name": "blur", "T": 3, "kernel": 5, "std": 2}
    one, other = (degradations.build({**spec, "std": std}, SIZE) for std in (2, 2.0))
    assert one.operators_on(cpu) is other.operators_on(cpu)  # type: ignore[attr-defined]
    animals = {"name": "animorphosis", "T": 3, "partner": "photos"}
    assert built(animals) == degradations.build(animals, SIZE)
    assert hash(built(animals)) == hash(degradations.build(animals, SIZE))


# The recursion as oracle


def check_recursion(degradation: Degradation, name: str, x: Tensor, t: int, drawn: Drawn) -> None:
    y = degradation(x.float(), torch.full((len(x),), t), drawn)
    torch.testing.assert_close(y.double(), RECURSIONS[name](degradation, x, t, drawn), rtol=0, atol=2e-6)


@every_case
def test_every_severity_agrees_with_the_recursion(spec: Spec) -> None:
    if spec["name"] not in RECURSIONS:
        pytest.skip(f"recursions.py has none for {spec['name']}")
    degradation = built(spec)
    drawn = degradation.draw(torch.tensor([5, 0, 77]), 1)
    for channels in channels_of(degradation):
        for t in range(degradation.T + 1):
            check_recursion(degradation, spec["name"], noise(3, channels, seed=channels), t, drawn)


SCHEDULES = st.sampled_from(["constant", "linear", "exponential"])
PADDINGS = st.sampled_from(["circular", "reflect"])


@st.composite
def blurs(draw: st.DrawFn) -> tuple[int, Spec]:
    """With borders, odd sizes, and kernels as wide as the image."""
    size, T = draw(st.integers(4, 20)), draw(st.integers(1, 6))
    widening = draw(st.integers(0, min(2, (size - 1) // max(T - 1, 1))))
    reach = draw(st.integers(0, min(9, size - 1 - widening * (T - 1))))
    spec = {"T": T, "kernel": 2 * reach + 1, "kernel_rate": 2 * widening, "std": draw(st.floats(0.2, 9))}
    spec |= {"schedule": draw(SCHEDULES), "rate": draw(st.floats(0, 0.5)), "padding": draw(PADDINGS)}
    return size, {"name": "blur", "quantized": draw(st.booleans()), **spec}


@st.composite
def single_blurs(draw: st.DrawFn) -> tuple[int, Spec]:
    """One convolution of the summed variance, with Gaussians wider than the image."""
    spec = {"T": draw(st.integers(1, 4)), "kernel": 3, "composition": "kernel", "std": draw(st.floats(0.2, 2))}
    spec |= {"schedule": draw(SCHEDULES), "rate": draw(st.floats(0, 0.2)), "padding": draw(PADDINGS)}
    return draw(st.integers(2, 16)), {"name": "blur", **spec}


@st.composite
def inpaintings(draw: st.DrawFn) -> tuple[int, Spec]:
    """With centres as far outside as twice the side of the image."""
    size = draw(st.integers(2, 24))
    low, high = sorted(round(draw(st.floats(-2, 2)) * size) for _ in range(2))
    spec = {"T": draw(st.integers(1, 12)), "std": draw(st.floats(0.01, 30)), "rate": draw(st.floats(0, 5))}
    spec |= {"width": draw(st.sampled_from(["std", "variance"])), "fill": draw(st.floats(-1, 1))}
    return size, {"name": "inpainting", "centre_low": low, "centre_high": high, **spec}


@st.composite
def generations(draw: st.DrawFn) -> tuple[int, Spec]:
    """At an odd side the centre lies between pixels."""
    spec = {"T": draw(st.integers(1, 12)), "std": draw(st.floats(0.01, 30)), "rate": draw(st.floats(0, 5))}
    spec |= {"order": draw(st.sampled_from(["inwards", "outwards"]))}
    return draw(st.integers(2, 24)), {"name": "inpainting_generation", **spec}


@st.composite
def reductions(draw: st.DrawFn) -> tuple[int, Spec]:
    """With odd sides and reductions to one pixel."""
    size, schedule = draw(st.integers(2, 40)), draw(st.sampled_from(["halving", "shrinking"]))
    T = draw(st.integers(1, size.bit_length() - 1 if schedule == "halving" else min(size, 12)))
    reduce = draw(st.sampled_from(["average", "bicubic", "bilinear"]))
    return size, {"name": "superresolution", "T": T, "schedule": schedule, "reduce": reduce}


SPACES = {"blur": blurs(), "single blur": single_blurs(), "inpainting": inpaintings(), "generation": generations()}
SPACES["superresolution"] = reductions()


@pytest.mark.parametrize("space", SPACES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_parameters_agree_with_the_recursion(space: str, data: st.DataObject) -> None:
    """At the last severities; the declared bound and mean hold as well."""
    size, spec = data.draw(SPACES[space])
    degradation = built(spec, size)
    drawn = degradation.draw(torch.tensor([3]), size)
    for t in {degradation.T, degradation.T - 1}:
        check_recursion(degradation, spec["name"], noise(1, 1, size, seed=size), t, drawn)
    x = noise(1, 1, size).sign()
    y = degradation(x, torch.tensor([degradation.T]), drawn)
    assert y.abs().max() <= degradation.bound + 1e-5
    if degradation.keeps_mean:
        torch.testing.assert_close(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0, atol=5e-6)


# Distributions of what is drawn


def test_centres_are_uniform_and_change_with_the_seed() -> None:
    """Over the whole declared square, rows independent of columns."""
    spec = {"name": "inpainting", "T": 2, "std": 1.0, "rate": 0.1, "centre_low": -1, "centre_high": 2}
    centre = built(spec).draw(torch.arange(4000), 3)["centre"]
    positions = ((centre + 1) * torch.tensor([4, 1])).sum(dim=1).bincount(minlength=16)
    assert positions.shape == (16,)
    assert positions.min() > 150, "expected 250 of 4000 at each of the 16 positions"
    assert not torch.equal(centre, built(spec).draw(torch.arange(4000), 4)["centre"])


def test_colours_are_uniform_and_noise_is_normal() -> None:
    """Colours channel by channel, noise pixel by pixel."""
    spec = {"name": "inpainting_generation", "T": 2, "std": 1.0, "rate": 0.1, "colour_low": -0.25, "colour_high": 0.75}
    colour = built(spec).draw(torch.arange(2000), 3)["colour"]
    for channel in range(3):
        assert stats.kstest(colour[:, channel].numpy(), "uniform", (-0.25, 1.0)).pvalue > 1e-3
    assert np.abs(np.corrcoef(colour.T.numpy()) - np.eye(3)).max() < 0.1
    z = first("noise").draw(torch.arange(40), 3)["z"]
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert z.flatten().unique().numel() > 0.98 * z.numel(), "some pixels share their noise"


def test_partners_are_uniform_and_change_with_the_seed() -> None:
    """A grey partner has three equal channels."""
    images = np.arange(5 * 256, dtype=np.uint32).reshape(5, 1, SIZE, SIZE) // 256 * 50
    degradation = degradations.build(
        {"name": "animorphosis", "T": 3, "partner": "photos"}, SIZE, images.astype(np.uint8)
    )
    z = degradation.draw(torch.arange(1000), 3)["z"]
    assert z.shape == (1000, 3, SIZE, SIZE)
    assert (z == z[:, :1, :1, :1]).all(), "not one of the images, or its channels differ"
    levels, counts = ((z[:, 0, 0, 0] + 1) / LEVEL).round().unique(return_counts=True)
    assert levels.tolist() == [0, 50, 100, 150, 200]
    assert counts.min() > 150, "expected 200 of 1000 of each of the 5 images"
    assert not torch.equal(z, degradation.draw(torch.arange(1000), 4)["z"])


# Refusals

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


def refusal(spec: Spec, size: int = SIZE) -> str:
    """The one line that refuses the parameters."""
    with pytest.raises(ColdbenchError) as error:
        built(spec, size)
    assert "\n" not in str(error.value)
    return str(error.value)


REFUSED: list[tuple[str, Spec, str, str]] = [  # a valid degradation, a change (None: removed), culprit, valid choice
    ("blur", {"name": "blurr"}, "degradation 'blurr'", "did you mean 'blur'?"),
    ("blur", {"name": "inpainting generation"}, "degradation 'inpainting generation'", "mean 'inpainting_generation'?"),
    ("blur", {"name": ["blur"]}, "degradation '['blur']'", "superresolution"),
    ("blur", {"name": None}, "degradation 'None'", "superresolution"),
    ("blur", {"kernal": 5}, "parameter of degradation blur 'kernal'", "did you mean 'kernel'?"),
    ("blur", {"size": 32}, "parameter of degradation blur 'size'", "valid: T, composition, kernel"),
    ("animorphosis", {"images": 1}, "parameter of degradation animorphosis 'images'", "valid: T, partner"),
    ("noise", {"partner": "x"}, "parameter of degradation noise 'partner'", "valid: T"),
    ("superresolution", {"quantized": True}, "parameter of degradation superresolution 'quantized'", "schedule"),
    ("blur", {"std": None}, "degradation blur", "parameter 'std' is missing"),
    ("superresolution", {"T": None}, "degradation superresolution", "parameter 'T' is missing"),
    ("animorphosis", {"partner": None}, "degradation animorphosis", "parameter 'partner' is missing"),
    ("animorphosis", {"partner": 3}, "animorphosis: partner", "must be a name, not 3"),
    ("blur", {"kernel": 10}, "blur: kernel", "must be odd, not 10"),
    ("blur", {"kernel_rate": 3}, "blur: kernel_rate", "must be even, not 3"),
    ("blur", {"kernel": 33}, "kernel 33", "16 px allow kernels up to 31"),
    ("blur", {"kernel": 27, "kernel_rate": 2}, "kernel 33", "16 px allow kernels up to 31"),
    ("blur", {"T": 99, "schedule": "exponential", "rate": 10}, "standard deviation of step 99", "at most 10000 pixels"),
    ("blur", {"schedule": "linaer"}, "schedule of degradation blur 'linaer'", "did you mean 'linear'?"),
    ("blur", {"schedule": 3}, "blur: schedule", "one of constant, linear, exponential, not 3"),
    ("blur", {"padding": "zeros"}, "padding of degradation blur 'zeros'", "circular, reflect"),
    ("blur", {"composition": "kernels"}, "composition of degradation blur 'kernels'", "did you mean 'kernel'?"),
    ("blur", {"rounding": "floor"}, "rounding of degradation blur 'floor'", "nearest, truncate"),
    ("blur", {"quantized": 1}, "blur: quantized", "must be true or false, not 1"),
    ("inpainting", {"quantized": "yes"}, "inpainting: quantized", "must be true or false, not 'yes'"),
    ("inpainting", {"rounding": "nearst"}, "rounding of degradation inpainting 'nearst'", "did you mean 'nearest'?"),
    ("inpainting", {"width": "var"}, "width of degradation inpainting 'var'", "std, variance"),
    ("inpainting", {"centre_low": 16}, "centre_low 16", "centre_high 15"),
    ("inpainting", {"centre_low": -33}, "centre_low", "in -32…32, not -33"),
    ("inpainting", {"centre_high": 33}, "centre_high", "in -32…32, not 33"),
    ("inpainting_generation", {"order": "inward"}, "order of degradation inpainting_generation", "mean 'inwards'?"),
    ("inpainting_generation", {"colour_low": 0.6}, "colour_low 0.6", "colour_high 0.5"),
    ("superresolution", {"T": 5}, "16 px can be reduced 4 times by halving", "T ≤ 4"),
    ("superresolution", {"T": 17, "schedule": "shrinking"}, "16 px can be reduced 16 times by shrinking", "T ≤ 16"),
    ("superresolution", {"schedule": "halfing"}, "schedule of degradation superresolution", "mean 'halving'?"),
    ("superresolution", {"reduce": "averge"}, "reduce of degradation superresolution 'averge'", "mean 'average'?"),
    ("decolorization", {"schedule": "cosine"}, "schedule of degradation decolorization 'cosine'", "constant, linear"),
    ("decolorization", {"grey": "lumma"}, "grey of degradation decolorization 'lumma'", "did you mean 'luma'?"),
    ("decolorization", {"total": 0}, "decolorization: total", "must be true or false, not 0"),
    ("snow", {"crop": "center"}, "crop of degradation snow 'center'", "did you mean 'centre'?"),
    ("snow", {"zoom": "cubic"}, "zoom of degradation snow 'cubic'", "linear, spline"),
    ("snow", {"fix_brightness": 1}, "snow: fix_brightness", "must be true or false, not 1"),
]


@pytest.mark.parametrize(("name", "change", "culprit", "choice"), REFUSED, ids=str)
def test_a_refusal_names_the_culprit_and_a_valid_choice(name: str, change: Spec, culprit: str, choice: str) -> None:
    spec = {"name": name, **VALID[name]}
    built(spec)
    line = refusal({key: value for key, value in {**spec, **change}.items() if value is not None})
    assert culprit in line
    assert choice in line


LIMITS: list[tuple[str, str, float, float, Spec]] = [
    *((name, "T", 1, 10_000, {}) for name in VALID if name != "superresolution"),
    ("superresolution", "T", 1, 4095, {"schedule": "shrinking"}),
    ("blur", "kernel", 1, 255, {}),
    ("blur", "kernel_rate", 0, 64, {}),
    ("blur", "std", 0.01, 1000.0, {}),
    ("blur", "rate", 0.0, 10.0, {}),
    ("decolorization", "keep", 0.0, 1.0, {}),
    ("inpainting", "std", 0.01, 1000.0, {}),
    ("inpainting", "rate", 0.0, 100.0, {}),
    ("inpainting", "fill", -1.0, 1.0, {}),
    ("inpainting_generation", "std", 0.01, 1000.0, {}),
    ("inpainting_generation", "rate", 0.0, 100.0, {}),
    ("inpainting_generation", "colour_low", -1.0, 1.0, {"colour_high": 1.0}),
    ("inpainting_generation", "colour_high", -1.0, 1.0, {"colour_low": -1.0}),
    ("snow", "level", 1, 4, {}),
    ("snow", "shared", 1, 10**9, {}),
]


@pytest.mark.parametrize(("name", "key", "low", "high", "extra"), LIMITS, ids=str)
def test_both_limits_are_valid_and_nothing_beyond_them(
    name: str, key: str, low: float, high: float, extra: Spec
) -> None:
    """Nor anything but a number, or a whole number where one is declared."""
    spec, size = {"name": name, **VALID[name], **extra}, 4096 if name == "superresolution" else 200
    whole = isinstance(low, int)
    for value in (low, high):
        built({**spec, key: value}, size)
    beyond = [low - 1, high + 1, low + 0.5, float(high)] if whole else [low - 0.001, high * 1.001]
    for value in [*beyond, math.nan, math.inf, True, "1", [1]]:
        line = refusal({**spec, key: value}, size)
        assert f"{key} must be a {'whole ' if whole else ''}number in {low:g}…{high:g}, not {value!r}" in line


@pytest.mark.parametrize("name", VALID)
def test_sizes_lie_in_2_to_4096(name: str) -> None:
    for size in (1, 0, -16, 4097, 16.0, True):
        with pytest.raises(ColdbenchError, match=f"size must be a whole number in 2…4096, not {size}$"):
            degradations.build({"name": name, **VALID[name]}, size)
    for size in (2, 4096):
        degradations.build({"name": "noise", "T": 1}, size)


@pytest.mark.parametrize(
    ("schedule", "size", "limit"),
    [("halving", 28, 4), ("halving", 31, 4), ("halving", 32, 5), ("halving", 3, 1), ("shrinking", 5, 5)],
)
def test_superresolution_ends_at_one_pixel(schedule: str, size: int, limit: int) -> None:
    spec = {"name": "superresolution", "schedule": schedule}
    assert built({**spec, "T": limit}, size).sides()[-1] == 1  # type: ignore[attr-defined]
    assert f"{size} px can be reduced {limit} times" in refusal({**spec, "T": limit + 1}, size)


def test_partners_of_another_size_or_none_are_refused() -> None:
    spec = {"name": "animorphosis", "T": 2, "partner": "photos"}
    for shape in ((2, 3, 32, 32), (2, 2, 16, 16), (0, 3, 16, 16)):
        with pytest.raises(ColdbenchError, match=rf"photos must be uint8 .* 16, 16\), not uint8 \({shape[0]}"):
            degradations.build(spec, SIZE, np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ColdbenchError, match="the images of photos are missing"):
        degradations.build(spec, SIZE).draw(torch.arange(2), 0)


GOOD = torch.zeros(2, 3, SIZE, SIZE)


def spoilt(value: float) -> Tensor:
    """A batch with one wrong pixel."""
    x = GOOD.clone()
    x[1, 2, 3, 4] = value
    return x


INPUTS: dict[str, tuple[Tensor, list[Any], str, str]] = {  # images, severities, limit, culprit
    "not square": (GOOD[..., :15], [1, 1], "(N, C, 16, 16)", "(2, 3, 16, 15)"),
    "1 x 1": (GOOD[..., :1, :1], [1, 1], "(N, C, 16, 16)", "(2, 3, 1, 1)"),
    "32 px": (torch.zeros(2, 3, 32, 32), [1, 1], "(N, C, 16, 16)", "(2, 3, 32, 32)"),
    "no batch": (GOOD[0], [1], "(N, C, 16, 16)", "(3, 16, 16)"),
    "2 channels": (GOOD[:, :2], [1, 1], "1 or 3 channels", "(2, 2, 16, 16)"),
    "4 channels": (torch.zeros(2, 4, SIZE, SIZE), [1, 1], "1 or 3 channels", "(2, 4, 16, 16)"),
    "uint8": (GOOD.to(torch.uint8), [1, 1], "floating point in [-1, 1]", "uint8"),
    "one t for two": (GOOD, [1], "int64 of shape (2,)", "(1,)"),
    "t with two axes": (GOOD, [[1], [1]], "int64 of shape (2,)", "(2, 1)"),
    "float t": (GOOD, [1.0, 1.0], "int64", "float32"),
    "bool t": (GOOD, [True, True], "int64", "bool"),
    "NaN": (spoilt(math.nan), [0, 0], "finite, nominally in [-1, 1]", "NaN"),
    "infinity": (spoilt(math.inf), [0, 0], "finite, nominally in [-1, 1]", "infinity"),
    "minus infinity": (spoilt(-math.inf), [0, 0], "finite, nominally in [-1, 1]", "infinity"),
}


@every_name
@pytest.mark.parametrize("case", INPUTS)
def test_input_that_does_not_fit_is_refused_at_every_severity(name: str, case: str) -> None:
    degradation, (x, t, limit, culprit) = first(name), INPUTS[case]
    with pytest.raises(ColdbenchError) as error:
        degradation(x, torch.tensor(t), degradation.draw(torch.arange(2), 0))
    assert "\n" not in str(error.value)
    assert limit in str(error.value)
    assert culprit in str(error.value)


@every_name
def test_severities_end_at_T_and_a_draw_serves_its_own_batch(name: str) -> None:
    degradation = first(name)
    x, T, drawn = GOOD, degradation.T, degradation.draw(torch.arange(2), 0)
    degradation(x, torch.tensor([0, T]), drawn)
    for low, high in [(0, T + 1), (-1, T)]:
        with pytest.raises(ColdbenchError, match=f"^severity must lie in 0…{T}, not {low}…{high}$"):
            degradation(x, torch.tensor([low, high]), drawn)
    if drawn:
        for n in (1, 3):
            with pytest.raises(ColdbenchError, match=rf"^drawn '\w+' was drawn for {n} images, not 2$"):
                degradation(x, torch.tensor([0, T]), degradation.draw(torch.arange(n), 0))
        with pytest.raises(ColdbenchError, match=rf"^drawn lacks '\w+': .* than {degradation.name}$"):
            degradation(x, torch.tensor([0, T]), {})
    if degradation.needs_colour:
        with pytest.raises(ColdbenchError, match=r"^degradation \w+ needs images of 3 channels, not 1$"):
            degradation(x[:, :1], torch.tensor([0, T]), drawn)


@every_name
def test_a_single_number_is_the_severity_of_all_images(name: str) -> None:
    degradation, x = first(name), GOOD
    drawn, t = degradation.draw(torch.arange(2), 0), degradation.T
    assert torch.equal(degradation(x, t, drawn), degradation(x, torch.tensor([t, t]), drawn))
    with pytest.raises(ColdbenchError, match=f"^severity must lie in 0…{t}"):
        degradation(x, t + 1, drawn)
    for wrong in ((x.numpy(), t, drawn), (x, 1.5, drawn), (x, [t, t], drawn), (x, t, None)):
        with pytest.raises(ColdbenchError, match=r"must be a (Tensor|dict), not a"):
            degradation(*wrong)


ENDLESS: dict[str, Any] = {"name": "noise"}
ENDLESS["T"] = ENDLESS
NO_SPECS: dict[str, tuple[Any, str, str]] = {  # what stands for a degradation, culprit, valid choice
    "number": (3, "3", "name and parameters"),
    "text": ("blur", "'blur'", "name and parameters"),
    "no name": ({}, "None", "blur"),
    "name that is a list": ({"name": ["blur"]}, "['blur']", "superresolution"),
    "number of 5,000 digits": ({"name": "noise", "T": 10**5000}, "T", "128 bits"),
    "date": ({"name": "noise", "T": datetime.date(2020, 1, 1)}, "T", "type date"),
    "bytes": ({"name": "noise", "T": b"9"}, "T", "type bytes"),
    "number for a key": ({"name": "noise", 1: 9}, "key 1", "quotes"),
    "itself": (ENDLESS, "T.T", "50 levels"),
    "long text": ({"name": "noise", "T": "9" * 9000}, "'999", "whole number in 1…10000"),
    "infinity": ({"name": "blur", "T": 2, "kernel": 3, "std": float("inf")}, "inf", "std must be a number in 0.01"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_SPECS)
def test_what_is_no_degradation_is_refused_in_one_line(case: str) -> None:
    spec, culprit, choice = NO_SPECS[case]
    with pytest.raises(ColdbenchError) as error:
        degradations.build(spec, 16)
    assert culprit in str(error.value)
    assert choice in str(error.value)
    assert len(str(error.value)) <= 300
