"""The laws of samplers, tried on small images of the suite's degradations; `core.laws` says what a law is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coldbench.core import plugins, rng
from coldbench.core.laws import Broken, Law, Skipped, cases_in, labelled
from coldbench.degradations import Degradation, Drawn, build, initial_xt
from coldbench.models import Restorer
from coldbench.sampling.samplers import Method, Step, method_of, sample

SIZE, COUNT, SEED = 16, 3, 1
COLD: tuple[dict[str, Any], ...] = (
    {"name": "blur", "T": 4, "kernel": 5, "std": 1.0},
    {"name": "inpainting", "T": 4, "std": 1.0, "rate": 0.5, "centre_low": 2, "centre_high": 12},
)
HOT: tuple[dict[str, Any], ...] = ({"name": "noise", "T": 4},)
"""What methods are tried on: those that estimate z on noise, the others on blur and inpainting."""
TOLERANCE = 1e-4
"""float32 iterates of a few steps, of which those for noise divide by small weights."""


@dataclass(frozen=True)
class Case:
    """A method with its parameters, and a degradation of images with one or three channels."""

    spec: dict[str, Any]
    method: Method
    degradation: Degradation
    channels: int
    label: str = ""

    def __str__(self) -> str:
        return self.label

    def start(self, indices: Tensor | None = None) -> tuple[Tensor, Tensor, Drawn]:
        """Images float32 (N, C, size, size), x_T, and what was drawn for them."""
        indices = torch.arange(COUNT) if indices is None else indices
        shape = (len(indices), self.channels, self.degradation.size, self.degradation.size)
        words = rng.uniform(SEED, "image", indices, shape[1] * shape[2] * shape[3])
        x0 = (2 * words.reshape(shape) - 1).to(torch.float32)
        drawn = self.degradation.draw_for(x0, indices, SEED)
        return x0, initial_xt(self.degradation, x0, drawn), drawn

    def steps(
        self, restore: Callable[[Tensor], Restorer], indices: Tensor | None = None, stride: int = 1
    ) -> list[Step]:
        """The steps of a batch; `restore` makes R(x, s) of the clean images."""
        indices = torch.arange(COUNT) if indices is None else indices
        x0, x, drawn = self.start(indices)

        def redraw(s: int) -> Drawn:
            return self.degradation.draw_for(x0, indices, SEED + s)

        with torch.inference_mode():
            return list(sample(restore(x0), self.degradation, x, drawn, self.spec, stride=stride, redraw=redraw))


def cases(name: str, parameters: Mapping[str, Any], data: Path) -> Iterator[Case]:
    """The method with each of its `test_params`, or its defaults, on each of its degradations."""
    kind = plugins.load("sampler", name).object
    yield from cases_in(kind, name, parameters, SIZE, lambda spec, size: cases_of(spec, None, size))


def cases_of(spec: dict[str, Any], channels: int | None, size: int) -> Iterator[Case]:
    """A method with its parameters on each of its degradations, of small images whatever `size` a run has."""
    method = method_of(spec)
    for each in HOT if method.estimates_z else COLD:
        for number in (channels,) if channels else (1, 3):
            label = labelled({**spec, "on": each["name"], "channels": number})
            yield Case(spec, method, build(each, SIZE), number, label)


def perfect(x0: Tensor) -> Restorer:
    """An R that knows the clean images."""
    return lambda x, s: x0.clone()


def imperfect(x0: Tensor) -> Restorer:
    """Some R, of which every image is restored by itself."""
    return lambda x, s: torch.tanh(1.5 * x.flip(3)) * (0.8 + 0.01 * s)


def runs(case: Case) -> str | None:
    """Every iterate has the shape and type of x_T, and is finite."""
    for step in case.steps(imperfect):
        if not step.x.isfinite().all():
            raise Broken(f"NaN or infinity after the step from severity {step.s}")
    return None


def perfect_restorer(case: Case) -> str | None:
    """If R gives back x0, so does the method."""
    _gives_back(case, stride=1)
    return None


def stride_2(case: Case) -> str | None:
    """Steps may span two severities."""
    if case.method.exact:
        _gives_back(case, stride=2)
    elif not case.steps(imperfect, stride=2)[-1].x.isfinite().all():
        raise Broken("NaN or infinity")
    return None


def _gives_back(case: Case, stride: int) -> None:
    if not case.method.exact:
        raise Skipped("exact=False")
    x0, *_ = case.start()
    difference = (case.steps(perfect, stride=stride)[-1].x - x0).abs().max()
    if not difference <= TOLERANCE:
        raise Broken(
            f"with a perfect restorer the result is {difference:.2g} away from x0; "
            "if it need not be, say exact=False in the decorator"
        )


def batch_independence(case: Case) -> str | None:
    """An image alone ends as that image in a batch."""
    together = case.steps(imperfect)[-1].x
    for i in range(COUNT):
        alone = case.steps(imperfect, torch.tensor([i]))[-1].x
        if not (difference := (alone - together[[i]]).abs().max()) <= TOLERANCE:
            raise Broken(f"image {i} changes by {difference:.2g} if it is alone: the images of a batch are mixed")
    return None


def deterministic(case: Case) -> str | None:
    """A second batch of the same images ends as the first, whatever torch's own random numbers are."""
    first = case.steps(imperfect)[-1].x
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        torch.rand(7)
        again = case.steps(imperfect)[-1].x
    if not torch.equal(first, again):
        raise Broken(
            "a second batch of the same images ends otherwise: draw by d.redrawn, remember nothing in the class"
        )
    return None


def leaves_its_inputs(case: Case) -> str | None:
    """Neither iterates nor predictions nor what was drawn is changed."""
    x0, x, drawn = case.start()
    seen: list[tuple[str, Tensor, Tensor]] = [(f"drawn '{key}'", value, value.clone()) for key, value in drawn.items()]
    seen.append(("x_T", x, x.clone()))

    def restore(x: Tensor, s: int) -> Tensor:
        prediction = imperfect(x0)(x, s)
        seen.extend([(f"x_{s}", x, x.clone()), ("x̂_0", prediction, prediction.clone())])
        return prediction

    with torch.inference_mode():
        for step in sample(
            restore,
            case.degradation,
            x,
            drawn,
            case.spec,
            redraw=lambda s: case.degradation.draw(torch.arange(COUNT), s),
        ):
            for what, value, before in seen:
                if not torch.equal(value, before):
                    raise Broken(f"the step from severity {step.s} changes {what} in place")
    return None


def nfe(case: Case) -> str | None:
    """The network is evaluated at least once; how often is counted."""
    steps = case.steps(imperfect)
    return f"{steps[-1].nfe} network evaluations in {len(steps)} steps (T = {case.degradation.T})"


LAWS = (
    Law("shape, dtype, finite", runs, required=True, basic=True),
    Law("leaves its inputs", leaves_its_inputs, required=True, basic=True),
    Law("perfect restorer gives back x0", perfect_restorer),
    Law("stride 2", stride_2),
    Law("batch independence", batch_independence, required=True),
    Law("deterministic", deterministic, required=True),
    Law("NFE", nfe),
)
