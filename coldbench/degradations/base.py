"""The contract of a degradation D(x0, t), and the parts that several families share.

D(x0, t, drawn) is a deterministic closed form: it costs the same for every severity t. Everything random was drawn
once per image, into `drawn`. Images are floating-point tensors (N, C, size, size), nominally in [-1, 1]. Severities t
are int64 (N,) in 0…T, and D(x0, 0) is x0 (paper, section 3.1).
"""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError
from coldbench.core.plugins import PARAMETERS

Drawn = dict[str, Tensor]
"""The random values of a batch: tensors whose first axis is the image."""
Matrix = npt.NDArray[np.float64]

STRICT = ConfigDict({**PARAMETERS, "use_attribute_docstrings": True})
"""The configuration of every family's dataclass; the docstring of a parameter is its description in the schema."""
Size = Annotated[int, Field(ge=2, le=4096)]
"""The side of the images in pixels."""
Severity = Annotated[int, Field(ge=1, le=10_000)]
"""The type of T, the largest severity."""
Rounding = Literal["truncate", "nearest"]
TINY = 1e-30
"""Smaller operator values become 0, because denormal numbers make a CPU's matrix product ten times slower."""


class Degradation(abc.ABC):
    """One degradation at one image size.

    A family is a frozen pydantic dataclass with `size`, `T` and its own parameters. It defines `degrade`, and `draw` if
    anything is random. The properties declare what else is true of it. The tests check them, and the contract, at 16 px
    for each set of parameters in `test_params`.
    """

    test_params: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Sets of parameters, without the name, that span the family."""

    orders: ClassVar[Mapping[str, str]] = {}
    """The order of the numbers of what is drawn, by name, in the words of help and messages."""

    size: int
    T: int

    @property
    def name(self) -> str:
        """The name in error messages."""
        return type(self).__name__.lower()

    @property
    def linear(self) -> bool:
        """Whether D(·, t, drawn) is a linear map."""
        return False

    @property
    def keeps_mean(self) -> bool:
        """Whether every channel keeps its mean."""
        return False

    @property
    def bound(self) -> float:
        """The largest absolute value of D(x0, t) for images in [-1, 1]."""
        return 1.0

    @property
    def needs_colour(self) -> bool:
        """Whether the images must have three channels."""
        return False

    @property
    def quantized(self) -> bool:
        """Whether the network is trained on 8-bit values (protocol 2.1 and 2.2); `network_input` makes them."""
        return False

    @property
    def rounding(self) -> Rounding:
        """How `quantize` rounds to 8 bits."""
        return "truncate"

    @property
    def quantized_start(self) -> bool:
        """Whether x_T, the start of a trajectory, is rounded to 8 bits too; `initial_xt` makes it."""
        return self.quantized

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """The random values of the images `indices`, int64 (N,), on their device; empty if nothing is random."""
        return {}

    def draw_for(self, x0: Tensor, indices: Tensor, seed: int) -> Drawn:
        """The random values of the clean images x0 (N, C, size, size), for degradations whose draws depend on them.

        Examples are photon counts, or the partner of a pair. Every batch of a known x0 is drawn by this method. `draw`
        serves where no x0 is known: generation, and the restoration of a user's images.
        """
        return self.draw(indices, seed)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn for an image."""
        kind = type(self)
        return kind.draw is not Degradation.draw or kind.draw_for is not Degradation.draw_for

    @abc.abstractmethod
    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The images at their severities t ≥ 1; anything finite where t = 0. `__call__` has checked the input."""

    def __call__(self, x0: Tensor, t: Tensor | int, drawn: Drawn) -> Tensor:
        """D(x0, t), of x0's shape and dtype: each image at its own severity, exactly x0 at t = 0.

        A single number is the severity of all images. Raises ColdbenchError if the images have another shape, are not
        floating point or not finite, if a severity is outside 0…T, or if `drawn` belongs to another number of images or
        another degradation.
        """
        if isinstance(t, int) and isinstance(x0, Tensor):
            t = torch.full((len(x0),), t, device=x0.device)
        check_input(self, x0, t, drawn)
        try:
            with _full_precision(x0.device):
                xt = self.degrade(x0, t, drawn)
        except KeyError as error:
            reason = f"drawn lacks {error}: it was drawn by another degradation than {self.name}"
            raise plugins.located(error) or ColdbenchError(reason) from None
        if not isinstance(xt, Tensor) or (xt.shape, xt.dtype) != (x0.shape, x0.dtype):
            raise ColdbenchError(f"degradation {self.name} turns {described(x0)} into {described(xt)}")
        return torch.where((t == 0)[:, None, None, None], x0, xt)


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast and TF32 off, so that a degradation is exact whatever precision the network runs in."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def described(value: Any) -> str:
    """A tensor's type and shape in words, or the type of anything else."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def check_input(degradation: Degradation, x0: Tensor, t: Tensor, drawn: Drawn) -> None:
    """Raise ColdbenchError, naming the limit, unless x0, t and drawn fit `degradation`."""
    size, top = degradation.size, degradation.T
    for what, value, kind in (("images", x0, Tensor), ("severities", t, Tensor), ("what was drawn", drawn, dict)):
        if not isinstance(value, kind):
            raise ColdbenchError(f"{what} must be a {kind.__name__}, not a {type(value).__name__}")
    if x0.ndim != 4 or x0.shape[-2:] != (size, size) or x0.shape[1] not in (1, 3):
        raise ColdbenchError(f"images must be (N, C, {size}, {size}) with 1 or 3 channels, not {tuple(x0.shape)}")
    if degradation.needs_colour and x0.shape[1] != 3:
        raise ColdbenchError(f"degradation {degradation.name} needs images of 3 channels, not {x0.shape[1]}")
    if not x0.is_floating_point():
        raise ColdbenchError(f"images must be floating point in [-1, 1], not {x0.dtype}")
    if t.shape != x0.shape[:1] or t.dtype != torch.int64:
        raise ColdbenchError(f"severities must be int64 of shape ({len(x0)},), not {t.dtype} {tuple(t.shape)}")
    for key, value in drawn.items():
        if len(value) != len(x0):
            raise ColdbenchError(f"drawn '{key}' was drawn for {len(value)} images, not {len(x0)}")
    if len(t) == 0:
        return
    # One transfer from the device for all three. A sum is the cheapest way to visit every pixel.
    total = x0.sum(dtype=torch.promote_types(x0.dtype, torch.float32)).double()
    low, high, finite = torch.stack([t.min().double(), t.max().double(), total]).tolist()
    if low < 0 or high > top:
        raise ColdbenchError(f"severity must lie in 0…{top}, not {low:.0f}…{high:.0f}")
    if not np.isfinite(finite):
        raise ColdbenchError("images must be finite, nominally in [-1, 1]; these hold NaN or infinity")


def quantize(x: Tensor, rounding: Rounding = "truncate") -> Tensor:
    """x in [-1, 1] rounded to the 256 levels of 8-bit images (discrepancy D18).

    truncate is the released code's rounding: in float32 and in this order, it lowers 63 of the 256 exact levels by one.
    nearest is the paper's word "rounding".
    """
    levels = (x + 1) * 0.5 * 255
    return (torch.trunc(levels) if rounding == "truncate" else torch.round(levels)) / 255 * 2 - 1


def network_input(degradation: Degradation, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
    """The network's input in training: D(x0, t), rounded to 8 bits if the degradation is `quantized`."""
    xt = degradation(x0, t, drawn)
    return quantize(xt, degradation.rounding) if degradation.quantized else xt


def initial_xt(degradation: Degradation, x0: Tensor, drawn: Drawn, severity: int | None = None) -> Tensor:
    """The start of a trajectory from `severity` (None: T); later iterates are never rounded.

    x_T is rounded to 8 bits if `quantized_start`; no other severity is.
    """
    severity = degradation.T if severity is None else severity
    t = torch.full((len(x0),), severity, device=x0.device)
    if degradation.quantized_start and severity == degradation.T:
        return network_input(degradation, x0, t, drawn)
    return degradation(x0, t, drawn)


class Precomputed(Degradation):
    """A degradation with one table of operators for all severities."""

    @abc.abstractmethod
    def operators(self) -> Matrix:
        """The operators at severities 0…T, float64 (T+1, …)."""

    def operators_on(self, device: torch.device) -> Tensor:
        """`operators` as float32 on `device`; degradations with equal parameters share one table."""
        return _operators_on(self, device)


@functools.lru_cache(maxsize=64)
def _operators_on(degradation: Precomputed, device: torch.device) -> Tensor:
    """`Precomputed.operators_on`: computed once per degradation, copied once per device."""
    if device.type != "cpu":
        return _operators_on(degradation, torch.device("cpu")).to(device)
    values = degradation.operators()
    return torch.from_numpy(np.where(np.abs(values) < TINY, 0.0, values)).to(torch.float32)


class SeparableLinear(Precomputed):
    """D(x, t) = A_t · x · A_tᵀ: the same matrix along rows and columns.

    Blur with its padding and pixelation have this form. `operators` gives A_0 = 1 … A_T, float64 (T+1, size, size).
    """

    linear = True

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """A_t · x0 · A_tᵀ for each image."""
        a = self.operators_on(x0.device)[t][:, None].to(x0.dtype)
        return a @ x0 @ a.mT
