"""The samplers of the paper: direct reconstruction, Algorithm 1 (naive), Algorithm 2 (TACoS), and those for noise.

All go from x_T to x_0. They differ only in how x_r, the next iterate, follows from x_s and x̂_0 = R(x_s, s). Nothing is
clamped, so iterates may leave [-1, 1] (protocol, section 3). A method without memory is an update rule; one with memory
is a subclass of `Sampler`.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.parameters import accepts, arguments
from coldbench.core.plugins import sampler
from coldbench.degradations import Degradation, Drawn
from coldbench.degradations.base import described
from coldbench.degradations.mixing import Mixing
from coldbench.models import Restorer


@dataclass(frozen=True)
class Step:
    """One reverse step: its severity s, the prediction x̂_0 = R(x_s, s), and the result x_r, each (N, C, H, W).

    `nfe` counts the evaluations of the network for an image up to here.
    """

    s: int
    x0_hat: Tensor
    x: Tensor
    nfe: int


@dataclass(frozen=True)
class Operator:
    """D for one batch.

    `drawn` was drawn when the batch was degraded; `redraw` draws again for one severity. D is evaluated `t_offset`
    severities too low, because the released snow and colour samplers do so (discrepancy D11). `restore` is R(x, s), for
    methods that evaluate the network more than once in a step.
    """

    degradation: Degradation
    drawn: Drawn
    redraw: Callable[[int], Drawn] | None = None
    t_offset: int = 0
    restore: Restorer | None = None

    def __call__(self, x0: Tensor, s: int, drawn: Drawn | None = None) -> Tensor:
        """D(x0, s) for the whole batch at one severity, by `drawn` or by another draw."""
        t = torch.full((len(x0),), max(s - self.t_offset, 0), device=x0.device)
        return self.degradation(x0, t, self.drawn if drawn is None else drawn)

    def redrawn(self, s: int) -> Drawn:
        """A new draw for severity s."""
        if self.redraw is None:
            raise ColdbenchError("redraw is missing: this method draws at every step")
        return self.redraw(s)

    def restored(self, x: Tensor, s: int) -> Tensor:
        """R(x, s), one more evaluation of the network for the whole batch; ColdbenchError unless 1 ≤ s ≤ T."""
        if self.restore is None:
            raise ColdbenchError("restore is missing: this method evaluates the network again")
        if not 1 <= s <= self.degradation.T:
            raise ColdbenchError(f"d.restored: severity {s} is out of range: the network knows 1…{self.degradation.T}")
        return self.restore(x, s)

    @property
    def mixing(self) -> Mixing:
        """The degradation as one that mixes with noise or another image; `check` has refused any other."""
        assert isinstance(self.degradation, Mixing)
        return self.degradation


Update = Callable[[Tensor, Tensor, int, int, Operator], Tensor]
"""An update rule: x_r from x_s, x̂_0 = R(x_s, s), s, r < s and D. It must not change its inputs."""


class Sampler(abc.ABC):
    """A method with memory. An object is made anew for each batch, and must treat each image as if it were alone.

    Annotated attributes are the parameters; what the method remembers is set in `begin`. `d` gives D by `d(x0, s)`,
    what was drawn for the images by `d.drawn`, and further evaluations of the network by `d.restored(x, s)`.
    Severities are numbers, and the last step has r = 0. The network knows none below 1: leave out `d.restored(x, 0)`.
    """

    def begin(self, x: Tensor, s: int, d: Operator) -> None:  # noqa: B027 - a method may have nothing to prepare
        """Prepare for a batch x (N, C, H, W) at its first severity s."""

    @abc.abstractmethod
    def step(self, x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
        """x_r, the next iterate, from x_s, x̂_0 = R(x_s, s), s, r < s and D; the inputs stay as they are."""


@sampler("direct", one_step=True)
def direct(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """x_0 = R(x_T, T), direct reconstruction: the first prediction is the result."""
    return x0_hat


@sampler("naive")
def naive(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 1: x_{s−1} = D(x̂_0, s−1)."""
    return d(x0_hat, r)


@sampler("tacos")
def tacos(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2, Transformation Agnostic Cold Sampling: x_{s−1} = x_s − D(x̂_0, s) + D(x̂_0, s−1).

    For noise this is the paper's fixed noise, because z is part of the draw.
    """
    return x - d(x0_hat, s) + d(x0_hat, r)


@sampler("estimated", estimates_z=True)
def estimated(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2 with ẑ = (x_s − √ᾱ_s x̂_0) / √(1 − ᾱ_s) instead of z: deterministic DDIM (appendix A.6)."""
    return d(x0_hat, r, {"z": d.mixing.estimate_z(x, x0_hat, s)})


@sampler("resampled", exact=False)
def resampled(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 2 with a new z at every step (section 5.1, the first of its three options)."""
    drawn = d.redrawn(s)
    return x - d(x0_hat, s, drawn) + d(x0_hat, r, drawn)


@sampler("naive_resampled")
def naive_resampled(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """Algorithm 1 with a new z at every step."""
    return d(x0_hat, r, d.redrawn(s))


@sampler("ddpm", estimates_z=True)
def ddpm(x: Tensor, x0_hat: Tensor, s: int, r: int, d: Operator) -> Tensor:
    """DDPM (Ho et al., 2020) in the form of Song et al. (2021): ẑ as in DDIM, plus noise with the posterior's σ_s."""
    z = d.mixing.estimate_z(x, x0_hat, s)
    keep, sigma = d.mixing.posterior(s, r)
    return d(x0_hat, r, {"z": keep * z + sigma * d.redrawn(s)["z"][:, : x.shape[1]].to(x.dtype)})


@dataclass(frozen=True)
class Method:
    """A sampler with its parameters, ready to start on batches: `begin(x, s, d)` gives the update rule of one batch.

    The options say that it estimates the z which images were mixed with, so that it fits only degradations that mix
    (noise and animorphosis); that it takes one step; and that a perfect network gives back x0.
    """

    begin: Callable[[Tensor, int, Operator], Update]
    estimates_z: bool = False
    one_step: bool = False
    exact: bool = True

    def severities(self, start: int, stride: int) -> range:
        """The severities at which steps begin."""
        return range(start, start - 1 if self.one_step else 0, -stride)


STEP = ("x", "x0_hat", "s", "r", "d")
OPTIONS = ("estimates_z", "one_step", "exact")
METHODS = tuple(plugins.OWN["sampler"])
"""The suite's own."""


def method_of(spec: str | Mapping[str, Any]) -> Method:
    """The sampler with a name, or with name and parameters; ColdbenchError if there is none or a parameter is wrong."""
    parameters = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, source = str(parameters.pop("name")), parameters.pop("source", None)
    registered, where = plugins.load("sampler", name, source), f"method {name}"
    kind, component = registered.object, plugins.find("sampler", name)
    if strange := registered.options.keys() - set(OPTIONS):
        raise unknown(f"option of sampler {name} ({component})", min(strange), OPTIONS)
    for option, value in registered.options.items():
        if not isinstance(value, bool):
            raise ColdbenchError(f"{component}: option {option} must be True or False, not {value!r}")
    if not inspect.isclass(kind):
        accepts(component, kind, *STEP)
        values = arguments(kind, parameters, where)
        update = partial(kind, **values) if values else kind
        return Method(lambda x, s, d: update, **registered.options)
    if not issubclass(kind, Sampler):
        raise ColdbenchError(f"{component}: {kind.__name__} is no subclass of Sampler")
    accepts(component, kind.step, "self", *STEP)
    accepts(component, kind.begin, "self", "x", "s", "d")
    values = arguments(kind, parameters, where)
    try:
        kind(**values)  # so that what it refuses itself is known before a job runs
    except (ValueError, TypeError) as error:
        raise plugins.located(error) or ColdbenchError(f"{component}: {where}: {error}") from error

    def begin(x: Tensor, s: int, d: Operator) -> Update:
        made = kind(**values)
        made.begin(x, s, d)
        return made.step

    return Method(begin, **registered.options)


@dataclass(frozen=True)
class Recorder(Operator):
    """Degrades nothing, and records in `sources` which draws a method asks for: `drawn` or `redrawn`."""

    sources: set[str] = field(default_factory=set)

    def __call__(self, x0: Tensor, s: int, drawn: Drawn | None = None) -> Tensor:
        """x0; at severity 0 no draw has an effect."""
        if drawn is None and s > self.t_offset:
            self.sources.add("drawn")
        return x0

    def __getattribute__(self, name: str) -> Any:
        """Whether a method looks at what was drawn by itself."""
        if name == "drawn":
            self.sources.add("drawn")
        return super().__getattribute__(name)

    def redrawn(self, s: int) -> Drawn:
        """The draw itself."""
        self.sources.add("redrawn")
        return super().__getattribute__("drawn")  # type: ignore[no-any-return]


def sources(
    method: str | Mapping[str, Any], degradation: Degradation, start: int, stride: int = 1, released_shift: bool = False
) -> set[str]:
    """The draws that decide the result of a method: `drawn` with the images, or `redrawn` for a step."""
    channels = 3 if degradation.needs_colour else 1
    x = torch.zeros(1, channels, degradation.size, degradation.size)
    drawn = degradation.draw(torch.zeros(1, dtype=torch.int64), 0)
    recorder = Recorder(degradation, drawn, t_offset=int(released_shift), restore=lambda x, s: x)
    recorder.sources.clear()
    made = method_of(method)
    update = made.begin(x, start, recorder)
    for s in made.severities(start, stride):
        x = update(x, x, s, max(s - stride, 0), recorder)
    return recorder.sources


def check(method: str | Mapping[str, Any], degradation: Degradation) -> Method:
    """The method; ColdbenchError unless it exists, its parameters are right, and it fits `degradation`."""
    made = method_of(method)
    if made.estimates_z and not isinstance(degradation, Mixing):
        name = method if isinstance(method, str) else method["name"]
        raise ColdbenchError(f"method {name} needs noise or another image, not {degradation.name}")
    return made


def sample(
    restore: Restorer,
    degradation: Degradation,
    x: Tensor,
    drawn: Drawn,
    method: str | Mapping[str, Any],
    start: int | None = None,
    stride: int = 1,
    released_shift: bool = False,
    redraw: Callable[[int], Drawn] | None = None,
) -> Iterator[Step]:
    """Restore a batch x (N, C, H, W) at severity `start` (default T) and yield every step; the last step's x is x_0.

    `method` is the name of a sampler, or a mapping of its name and parameters. It knows what was `drawn` when x was
    degraded, for example where the mask lies. A step spans `stride` severities. `released_shift` evaluates every D one
    severity too low, as the released code does for snow and colour (discrepancy D11). `redraw` draws for one severity;
    the methods that draw at every step need it.

    Raises ColdbenchError for a method that `check` refuses, a start outside 1…T, a stride below 1, or an iterate of
    another shape or type than x.
    """
    made, count = check(method, degradation), 0

    def counted(x: Tensor, s: int) -> Tensor:
        nonlocal count
        count += 1
        return restore(x, s)

    s = degradation.T if start is None else start
    if not 1 <= s <= degradation.T or stride < 1:
        raise ColdbenchError(f"severity {s} with stride {stride} is out of range: 1…{degradation.T} by 1 or more")
    d = Operator(degradation, drawn, redraw, t_offset=int(released_shift), restore=counted)
    update = made.begin(x, s, d)
    for step in made.severities(s, stride):
        x0_hat = counted(x, step)
        x_r = update(x, x0_hat, step, max(step - stride, 0), d)
        if not isinstance(x_r, Tensor) or (x_r.shape, x_r.dtype) != (x.shape, x.dtype):
            name = method if isinstance(method, str) else method["name"]
            raise ColdbenchError(f"method {name} turns {described(x)} into {described(x_r)}")
        x = x_r
        yield Step(step, x0_hat, x, count)


def reconstruct(
    restore: Restorer,
    degradation: Degradation,
    x: Tensor,
    drawn: Drawn,
    method: str | Mapping[str, Any] = "tacos",
    **options: Any,
) -> Tensor:
    """x_0 of a degraded batch x (N, C, H, W): the last step of `sample`, which says what the arguments mean.

    `options` are start, stride, released_shift and redraw. ColdbenchError as from `sample`.
    """
    *_, last = sample(restore, degradation, x, drawn, method, **options)
    return last.x
