"""The contract of a degradation, and what several families share.

D(x0, t, drawn) is a deterministic, closed form: it costs the same for every severity t, and everything random was drawn
once, per image, into `drawn`. Images are float tensors (N, C, size, size), nominally in [-1, 1]; t is int64 (N,) in
0…T; severity 0 is the identity (paper, section 3.1).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError, unknown

Drawn = dict[str, Tensor]
"""What was drawn for a batch: tensors whose first axis is the image."""

Matrix = npt.NDArray[np.float64]


class Degradation(abc.ABC):
    """One degradation at one image size. A family is a frozen dataclass with `size`, `T` and its own parameters.

    It writes down `degrade`, and `draw` if anything is random. The properties drawn what is true of it beyond the
    contract; the laws of the test suite hold it to them, at 16 px, for each of `test_params`.
    """

    test_params: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Parameter sets (without the name) that span the family: what the laws are tested with."""

    size: int
    T: int

    @property
    def name(self) -> str:
        """What its errors call it."""
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
        """The largest |D(x0, t)| for images in [-1, 1]."""
        return 1.0

    @property
    def needs_colour(self) -> bool:
        """Whether the images must have three channels."""
        return False

    @property
    def quantized(self) -> bool:
        """Whether the network is trained on 8-bit values (protocol 2.1, 2.2): see `network_input`."""
        return False

    @property
    def rounding(self) -> str:
        """How 8-bit values are made: truncate or nearest."""
        return "truncate"

    @property
    def quantized_start(self) -> bool:
        """Whether x_T, the start of a trajectory, is brought to 8 bits as well: see `initial_xt`."""
        return self.quantized

    def draw(self, indices: Tensor, seed: int) -> Drawn:
        """Draw what is random for the images `indices` (N,) int64, on their device; nothing, if nothing is."""
        return {}

    @abc.abstractmethod
    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """The images at severities t ≥ 1, one per image; where t = 0, anything finite. The input has been checked."""

    def __call__(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """D(x0, t): the images at severities t, one per image; exactly x0 at t = 0.

        Raises ColdbenchError for images of another shape or size, not floating point or not finite, for severities
        outside 0…T, and for draws made for another number of images.
        """
        check_input(self, x0, t, drawn)
        try:
            with _full_precision(x0.device):
                xt = self.degrade(x0, t, drawn)
        except KeyError as error:
            raise ColdbenchError(f"the draw lacks {error}: it was not made by {self.name}") from None
        return torch.where((t == 0)[:, None, None, None], x0, xt)


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Degradations are exact, whatever number format the network runs in: no autocast, no TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def check_input(degradation: Degradation, x0: Tensor, t: Tensor, drawn: Drawn) -> None:
    """Raise ColdbenchError, naming the limit, unless x0, t and drawn fit `degradation`."""
    size, top = degradation.size, degradation.T
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
    # one transfer from the device for all three; a sum is the cheapest way to meet every pixel
    total = x0.sum(dtype=torch.promote_types(x0.dtype, torch.float32)).double()
    low, high, finite = torch.stack([t.min().double(), t.max().double(), total]).tolist()
    if low < 0 or high > top:
        raise ColdbenchError(f"severity must lie in 0…{top}, not {low:.0f}…{high:.0f}")
    if not np.isfinite(finite):
        raise ColdbenchError("images must be finite, nominally in [-1, 1]; these hold NaN or infinity")


def quantize(x: Tensor, rounding: str = "truncate") -> Tensor:
    """x in [-1, 1] brought to the 256 levels of 8-bit images (discrepancy D18).

    truncate: as released, in float32 and in this order, so that 63 of the 256 exact values come out one level lower;
    nearest: as the paper's word "rounding" has it.
    """
    levels = (x + 1) * 0.5 * 255
    return (torch.trunc(levels) if rounding == "truncate" else torch.round(levels)) / 255 * 2 - 1


def network_input(degradation: Degradation, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
    """What the network is shown of D(x0, t) in training: 8-bit values where the degradation is discrete."""
    xt = degradation(x0, t, drawn)
    return quantize(xt, degradation.rounding) if degradation.quantized else xt


def initial_xt(degradation: Degradation, x0: Tensor, drawn: Drawn) -> Tensor:
    """x_T, where a trajectory starts; 8-bit where the protocol has it. Iterates inside a trajectory never are."""
    t = torch.full((len(x0),), degradation.T, device=x0.device)
    if degradation.quantized_start:
        return network_input(degradation, x0, t, drawn)
    return degradation(x0, t, drawn)


class DeviceCopies:
    """Operators composed once in float64 and kept as float32 on each device that asks."""

    def __init__(self, values: Matrix) -> None:
        # Weights this small change nothing, but as denormal numbers they make a CPU's matrix product ten times slower.
        kept = np.where(np.abs(values) < 1e-30, 0.0, values)
        self._on: dict[torch.device, Tensor] = {torch.device("cpu"): torch.from_numpy(kept).to(torch.float32)}

    def on(self, device: torch.device) -> Tensor:
        """The table, float32, on `device`."""
        if device not in self._on:
            self._on[device] = self._on[torch.device("cpu")].to(device)
        return self._on[device]


class Precomputed(Degradation):
    """A degradation whose operators at all severities are one table, composed once by `operators`."""

    @abc.abstractmethod
    def operators(self) -> Matrix:
        """The operators at severities 0…T, float64 (T+1, …)."""

    def operators_on(self, device: torch.device) -> Tensor:
        """`operators` as float32 on `device`, composed once per (family, size, schedule)."""
        return _precomputed(self).on(device)


class SeparableLinear(Precomputed):
    """D(x, t) = A_t · x · A_tᵀ: the same size × size matrix along rows and columns, composed once for every t.

    Blur (with its padding) and pixelation are of this form; `operators` gives A_0 = 1 … A_T, (T+1, size, size).
    """

    linear = True

    def degrade(self, x0: Tensor, t: Tensor, drawn: Drawn) -> Tensor:
        """A_t · x0 · A_tᵀ per image."""
        a = self.operators_on(x0.device)[t][:, None].to(x0.dtype)
        return a @ x0 @ a.mT


@functools.lru_cache(maxsize=32)
def _precomputed(degradation: Precomputed) -> DeviceCopies:
    """The dataclass itself is the key: equal parameters, one table."""
    return DeviceCopies(degradation.operators())


def choose(kind: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ColdbenchError unless `value` is one of `choices`."""
    if value not in choices:
        raise unknown(kind, str(value), choices)


def check_numbers(degradation: Any, **limits: tuple[float, float]) -> None:
    """Raise ColdbenchError unless each named parameter is a number (an integer where declared so) within its limits.

    Parameters declared as bool must be true or false.
    """
    name = degradation.name
    kinds = {field.name: getattr(field.type, "__name__", field.type) for field in dataclasses.fields(degradation)}
    for key, kind in kinds.items():
        if kind == "bool" and not isinstance(getattr(degradation, key), bool):
            raise ColdbenchError(f"degradation {name}: {key} must be true or false, not {getattr(degradation, key)!r}")
    for key, (low, high) in limits.items():
        value = getattr(degradation, key)
        allowed = int if kinds[key] == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
            what = "a whole number" if kinds[key] == "int" else "a number"
            raise ColdbenchError(f"degradation {name}: {key} must be {what} in {low:g}…{high:g}, not {value!r}")
