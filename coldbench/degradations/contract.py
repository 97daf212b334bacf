"""The laws of degradations, tried on a few small images; `core.laws` says what a law is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coldbench.core import plugins, rng
from coldbench.core.laws import Broken, Law, Skipped, cases_in, labelled
from coldbench.degradations.base import Degradation, Drawn, described
from coldbench.degradations.registry import build, kind_of

SIZE, COUNT, SEED = 16, 8, 1
"""Side and number of the images, unless the parameters state a `size`; seed of what is drawn for them."""
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}
"""Two equal sums may differ by rounding, because a batch of another size may be summed in another order."""
SLOWEST = 3.0
"""How much longer the suite's own degradations may take for severity T than for severity 1."""


@dataclass(frozen=True)
class Case:
    """A degradation with the number of channels of its images; `own` says that it is one of the suite."""

    degradation: Degradation
    channels: int
    label: str = ""
    own: bool = False

    def __str__(self) -> str:
        return self.label

    def images(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uniform images in [-1, 1], (COUNT, C, size, size); two of them are black and white."""
        shape = (COUNT, self.channels, self.degradation.size, self.degradation.size)
        x = 2 * rng.uniform(SEED, "image", torch.arange(COUNT), shape[1] * shape[2] * shape[3]).reshape(shape) - 1
        x[-2:] = x[-2:].sign()
        return x.to(dtype)

    @property
    def t(self) -> Tensor:
        """Severities from 0 to T."""
        return torch.linspace(0, self.degradation.T, COUNT).round().to(torch.int64)

    def draw(self, indices: Tensor | None = None) -> Drawn:
        """What is drawn for images 0…COUNT−1, or for those with `indices`."""
        indices = torch.arange(COUNT) if indices is None else indices
        return self.degradation.draw_for(self.images()[indices], indices, SEED)


def cases(name: str, parameters: Mapping[str, Any], data: Path) -> Iterator[Case]:
    """The degradation with each of its `test_params`, on images of one channel and of three.

    Without `test_params` its defaults are tried, with T = 5 if T has none.
    """
    kind = kind_of(name)
    missing_T = not kind.test_params and kind.__pydantic_fields__["T"].is_required()  # type: ignore[attr-defined]
    values = {**({"T": 5} if missing_T else {}), **parameters}
    yield from cases_in(kind, name, values, SIZE, lambda spec, size: cases_of(spec, None, size))


def cases_of(spec: Mapping[str, Any], channels: int | None, size: int) -> Iterator[Case]:
    """A degradation with its parameters, on images of so many channels; None: of all numbers that it takes."""
    degradation = build(spec, size, partners(size))
    for number in (channels,) if channels else (3,) if degradation.needs_colour else (1, 3):
        label = labelled({**spec, "channels": number})
        yield Case(degradation, number, label, spec["name"] in plugins.OWN["degradation"])


def partners(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images for degradations that mix in other images: a white one, a black one and five of noise."""
    images = np.random.default_rng(0).integers(0, 256, (7, 3, size, size), dtype=np.uint8)
    images[0], images[1] = 255, 0
    return images


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference; NaN is equal to NaN, because `finite` is a law of its own."""
    return float(torch.where(a.isnan() & b.isnan(), 0, a - b).abs().nan_to_num(nan=torch.inf).max())


def shape_and_dtype(case: Case) -> str | None:
    """float32 and float64 in, the same out."""
    for dtype in TOLERANCE:
        x, t, drawn = case.images(dtype), case.t, case.draw()
        y = case.degradation(x, t, drawn)
        raw = case.degradation.degrade(x, t, drawn)
        for value in (y, raw):
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != (x.shape, x.dtype):
                raise Broken(f"it turns {described(x)} into {described(value)}")
    return None


def identity_at_zero(case: Case) -> str | None:
    """D(x, 0) is x, also in a batch of other severities."""
    x = case.images()
    for t in (torch.zeros(COUNT, dtype=torch.int64), case.t):
        if not torch.equal(case.degradation(x, t, case.draw())[t == 0], x[t == 0]):
            raise Broken("D(x, 0) is not x")
    return None


def finite(case: Case) -> str | None:
    """No NaN, no infinity."""
    for dtype in TOLERANCE:
        y = case.degradation(case.images(dtype), case.t, case.draw())
        if not y.isfinite().all():
            worst = case.t[~y.isfinite().flatten(1).all(dim=1)].tolist()
            raise Broken(f"NaN or infinity at severity {worst[0]}")
    return None


def within_bound(case: Case) -> str | None:
    """|D(x, t)| is at most `bound`."""
    y, bound = case.degradation(case.images(), case.t, case.draw()), case.degradation.bound
    if y.abs().max() > bound + 1e-5:
        raise Broken(f"values up to {y.abs().max():.3g}, but `bound` is {bound:.3g}")
    return None


def declarations(case: Case) -> str | None:
    """`linear` and `keeps_mean` are true where they are declared."""
    D, x, t, drawn = case.degradation, case.images(), case.t, case.draw()
    y, declared = D(x, t, drawn), []
    if D.keeps_mean:
        declared.append("keeps_mean")
        if _difference(y.mean(dim=(2, 3)), x.mean(dim=(2, 3))) > TOLERANCE[torch.float32]:  # operators are float32
            raise Broken("it declares keeps_mean, but the mean of a channel changes")
    if D.linear:
        declared.append("linear")
        other = x.flip(0, 2)
        if _difference(D(0.3 * x - 0.6 * other, t, drawn), 0.3 * y - 0.6 * D(other, t, drawn)) > 1e-12:
            raise Broken("it declares linear, but D(0.3 x − 0.6 y) is not 0.3 D(x) − 0.6 D(y)")
    if not declared:
        raise Skipped("neither linear nor keeps_mean is declared")
    return ", ".join(declared)


def severity_per_image(case: Case) -> str | None:
    """A batch of several severities is the batches of one severity each."""
    x, t, drawn = case.images(), case.t, case.draw()
    y = case.degradation(x, t, drawn)
    for i, severity in enumerate(t.tolist()):
        difference = _difference(case.degradation(x, severity, drawn)[i], y[i])
        if difference > TOLERANCE[x.dtype]:
            raise Broken(f"an image at severity {severity} changes by {difference:.2g} if the others have it as well")
    return None


def batch_independence(case: Case) -> str | None:
    """An image alone, with what is drawn for it alone, is that image in a batch."""
    for dtype in TOLERANCE:
        x, t = case.images(dtype), case.t
        y = case.degradation(x, t, case.draw())
        for i in range(COUNT):
            alone = case.degradation(x[[i]], t[[i]], case.draw(torch.tensor([i])))
            if (difference := _difference(alone, y[[i]])) > TOLERANCE[dtype]:
                raise Broken(f"image {i} changes by {difference:.2g} if it is alone: the images of a batch are mixed")
    return None


def deterministic(case: Case) -> str | None:
    """What was drawn decides D(x, t): torch's own random numbers have no part in it."""
    x, t, drawn = case.images(), case.t, case.draw()
    y = case.degradation(x, t, drawn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        torch.rand(7)
        again = case.degradation(x, t, drawn)
    if _difference(y, again) > 0:
        raise Broken("a second call gives other values: draw all random numbers in `draw`")
    return None


def draw_belongs_to_the_image(case: Case) -> str | None:
    """The draw of images 3 and 5 is that of rows 3 and 5 of all images, and is the same each time."""
    whole, indices = case.draw(), torch.tensor([3, 5])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        part = case.draw(indices)
    if not isinstance(whole, dict) or any(not isinstance(value, Tensor) for value in whole.values()):
        raise Broken("draw must return a dict of tensors")
    for key, value in whole.items():
        if len(value) != COUNT or len(part[key]) != len(indices):
            raise Broken(f"the first axis of drawn '{key}' is not the image")
        if not torch.equal(part[key], value[indices]):
            raise Broken(f"drawn '{key}' depends on the other images or on chance: use coldbench.rng")
    if not whole:
        return "draws nothing"
    return f"draws {', '.join(whole)}"


def leaves_its_inputs(case: Case) -> str | None:
    """Neither the images nor the severities nor what was drawn is changed."""
    x, t, drawn = case.images(), case.t, case.draw()
    before = x.clone(), t.clone(), {key: value.clone() for key, value in drawn.items()}
    case.degradation(x, t, drawn)
    if not torch.equal(x, before[0]):
        raise Broken("it changes the images that it is given")
    if not torch.equal(t, before[1]):
        raise Broken("it changes the severities that it is given")
    for key, value in drawn.items():
        if not torch.equal(value, before[2][key]):
            raise Broken(f"it changes drawn '{key}'")
    return None


def cost(case: Case) -> str | None:
    """The suite's own take as long for severity T as for severity 1."""
    x, drawn, T = case.images(torch.float32), case.draw(), case.degradation.T
    if T == 1:
        raise Skipped("T is 1")
    first, last = (_seconds(lambda t=t: case.degradation(x, t, drawn)) for t in (1, T))  # type: ignore[misc]
    factor = last / first
    if case.own and factor > SLOWEST:
        raise Broken(f"severity {T} takes {factor:.1f} times as long as severity 1")
    return f"severity {T} takes {factor:.1f} times as long as severity 1 ({last / COUNT * 1e6:.0f} µs an image)"


def _seconds(call: Callable[[], Any]) -> float:
    """The shortest of several calls, in seconds of this thread, because other processes disturb them."""
    call()
    times = []
    for _ in range(7):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    return min(times)


LAWS = (
    Law("shape and dtype", shape_and_dtype, required=True, basic=True),
    Law("leaves its inputs", leaves_its_inputs, required=True, basic=True),
    Law("identity at t = 0", identity_at_zero, required=True),
    Law("finite", finite, required=True),
    Law("within bound", within_bound),
    Law("linear, keeps_mean", declarations),
    Law("severity per image", severity_per_image, required=True),
    Law("batch independence", batch_independence, required=True),
    Law("deterministic", deterministic, required=True),
    Law("draw belongs to the image", draw_belongs_to_the_image, required=True),
    Law("cost", cost),
)
